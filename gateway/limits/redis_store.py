"""The store that all workers and replicas share: buckets and concurrency limits in Redis or Valkey."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import redis.exceptions

from gateway.limits import lua_scripts
from gateway.limits.plan import Bucket, ConcurrencyLimit, Plan
from gateway.limits.settlement_queue import Settlement, SettlementQueue
from gateway.limits.store import Grant, Refusal, StoreDown
from gateway.redis_client import Client, bounded

_RENEWALS: Final = 3
"""Renewals of a lease in its length: two of them may fail."""
_LEAVE_SECONDS: Final = 1.0


class RedisStore:
    """One script for each decision; lua_scripts.py has the data model."""

    def __init__(self, client: Client, prefix: str, timeout: float, lease_seconds: float, counts: Counter[str]) -> None:
        """Each command is bounded by `timeout` seconds. `counts` gets the settlements that were `lost`."""
        self._prefix = f"{prefix}:limits:"
        self._timeout = timeout
        self._lease_ms = int(lease_seconds * 1000)
        self._take = client.register_script(lua_scripts.TAKE)
        self._settle = client.register_script(lua_scripts.SETTLE)
        self._renew = client.register_script(lua_scripts.RENEW)
        self._process = os.urandom(8).hex()
        self._serial = count()
        self._settlements = SettlementQueue(self._settled, self._renewed, lease_seconds / _RENEWALS, counts)
        self._left: set[asyncio.Task[Grant | Refusal]] = set()

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """See Store."""
        asked = asyncio.create_task(self._ask(plan, least, cost))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            self._left.add(asked)
            asked.add_done_callback(self._undo)
            raise

    def settle(self, grant: Grant, unused: int) -> None:
        """See Store."""
        self._settlements.settle(grant, unused)

    async def stop(self) -> None:
        """See Store."""
        if self._left:
            await asyncio.wait(self._left, timeout=_LEAVE_SECONDS + self._timeout)
        await self._settlements.stop()

    async def _ask(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        lease = f"{self._process}{next(self._serial):x}"
        keys, arguments = self._plan(plan)
        own = plan.own
        asked = (len(plan.requests), len(plan.tokens), least, cost, lease, self._lease_ms)
        head = (*asked, plan.held_lease, len(own.requests), len(own.tokens))
        answer = await self._call(self._take, keys, (*head, *arguments))
        if not answer[0]:
            every: tuple[Bucket | ConcurrencyLimit, ...] = (*plan.requests, *plan.tokens, *plan.concurrency)
            by = every[answer[1] - 1]
            return Refusal(by, answer[2] if isinstance(by, Bucket) else None)
        grant = Grant(self, plan, lease, *answer[1:])
        if plan.concurrency:
            self._settlements.hold(grant)
        return grant

    def _undo(self, asked: asyncio.Task[Grant | Refusal]) -> None:
        """Gives back a grant whose caller left before it came."""
        self._left.discard(asked)
        if not asked.cancelled() and asked.exception() is None and isinstance(grant := asked.result(), Grant):
            self.settle(grant, grant.tokens)

    def _plan(self, plan: Plan) -> tuple[list[str], list[int]]:
        keys: list[str] = []
        arguments: list[int] = []
        for bucket in (*plan.requests, *plan.tokens):
            keys.append(self._prefix + bucket.key)
            arguments += (bucket.limit.interval, bucket.limit.burst)
        for slots in plan.concurrency:
            keys.append(self._prefix + slots.key)
            arguments.append(slots.maximum)
        return keys, arguments

    async def _settled(self, batch: Sequence[Settlement]) -> None:
        keys: list[str] = []
        arguments: list[str | int] = []
        for grant, unused in batch:
            plan = grant.plan
            keys += (self._prefix + bucket.key for bucket in plan.tokens)
            keys += (self._prefix + slots.key for slots in plan.concurrency)
            arguments += (grant.lease, unused, len(plan.tokens), len(plan.concurrency))
            arguments += (bucket.limit.interval for bucket in plan.tokens)
        await self._call(self._settle, keys, arguments)

    async def _renewed(self, grants: Sequence[Grant]) -> None:
        held = [(self._prefix + slots.key, grant.lease) for grant in grants for slots in grant.plan.concurrency]
        await self._call(self._renew, [key for key, _ in held], [self._lease_ms, *(lease for _, lease in held)])

    async def _call(self, script: Any, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        try:
            async with bounded(self._timeout):
                return await script(keys, arguments)
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            raise StoreDown from error
