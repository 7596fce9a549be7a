"""What becomes of calls while the shared store is down: they are refused, or each process gives out its share."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from gateway.limits.memory_store import MemoryStore
from gateway.limits.plan import Plan
from gateway.limits.store import Grant, Refusal, Store, StoreDown
from gateway.redis_client import cause
from meshgate import errors

_log = logging.getLogger(__name__)

_FAILURES: Final = 3
"""So many in a row, and the store is held to be down: one slow answer is no outage."""
_AGAIN: Final = 1_000_000_000
"""Nanoseconds from one try to the next while it is down: so much later, at most, than the store are we back."""


class CircuitBreaker:
    """Whether it is worth asking. Open, it lets one through now and then."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock` is in nanoseconds."""
        self._clock = clock
        self._failures = 0
        self._next = 0

    def allows(self) -> bool:
        """Whether to ask now."""
        if self._failures < _FAILURES:
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _AGAIN
        return True

    def failed(self) -> bool:
        """Notes that the store did not answer. True when that opens it."""
        self._failures += 1
        self._next = self._clock() + _AGAIN
        return self._failures == _FAILURES

    def worked(self) -> bool:
        """Notes that it answered. True when that closes it."""
        was_open, self._failures = self._failures >= _FAILURES, 0
        return was_open


class FailoverStore:
    """The shared store, and what stands in for it. `local` None refuses instead."""

    def __init__(
        self,
        shared: Store,
        local: MemoryStore | None,
        processes: int,
        counts: Counter[str],
        circuit: CircuitBreaker | None = None,
        address: str = "",
    ) -> None:
        """`processes` share the limits. `counts` gets `down`, `up`, and `denied` or `local` for each decision.

        `address` is where the store is, for the log.
        """
        self._shared = shared
        self._local = local
        self._processes = processes
        self._counts = counts
        self._circuit = circuit or CircuitBreaker()
        self._address = address

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """See Store. Raises Unavailable (LIMITS_UNAVAILABLE) where there is no standing in."""
        if self._circuit.allows():
            try:
                answer = await self._shared.take(plan, least, cost)
            except StoreDown as error:
                if self._circuit.failed():
                    self._say("down", why=cause(error.__cause__))
            else:
                if self._circuit.worked():
                    self._say("up")
                return answer
        return await self._alone(plan, least, cost)

    def settle(self, grant: Grant, unused: int) -> None:
        """See Store: whichever store granted it hears of it."""
        grant.store.settle(grant, unused)

    async def stop(self) -> None:
        """See Store."""
        await self._shared.stop()

    async def _alone(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        if self._local is None:
            self._counts["denied"] += 1
            raise errors.Unavailable("the limits can't be known now", reason="LIMITS_UNAVAILABLE", retry_after=1.0)
        self._counts["local"] += 1
        part = plan.part(self._processes)
        return await self._local.take(part, min(least, part.max_tokens), min(cost, part.max_tokens))

    def _say(self, what: str, **why: str) -> None:
        self._counts[what] += 1
        _log.warning("limits store: %s", what, extra={"store": what, "address": self._address, **why})
