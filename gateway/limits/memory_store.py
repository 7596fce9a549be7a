"""The store in this process: exact for one worker, and a share of the limits while the shared store is down."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from gateway.limits import gcra
from gateway.limits.plan import UNLIMITED, Bucket, Plan
from gateway.limits.store import Grant, Refusal
from meshgate import errors

_MAX_BUCKETS: Final = 1_000_000
_SWEEP: Final = 2
"""Buckets examined for each new one, so that full ones go at least as fast as new ones come."""


class MemoryStore:
    """Buckets and concurrency slots in memory. Full buckets and free slots are forgotten, so memory follows traffic."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns, max_buckets: int = _MAX_BUCKETS) -> None:
        """`clock` is in nanoseconds; a reading that goes back counts as the latest one."""
        self._clock = clock
        self._latest = clock()
        self._max_buckets = max_buckets
        self._tats: OrderedDict[str, int] = OrderedDict()
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._tats) + len(self._taken)

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """See Store. Pending calls hold no slot here (see pending.py), so there is no lease to take over."""
        now = self._now()
        requests = self._units(plan.requests, now)
        tokens = self._units(plan.tokens, now)
        if requests < 1 or tokens < least or self._full(plan):
            return self._refusal(plan, now, least)
        known = len(self._tats)
        if known >= self._max_buckets:
            self._make_room(plan, now)
        granted = min(cost, tokens)
        own = plan.own
        if own is not plan:
            requests, tokens = self._units(own.requests, now), self._units(own.tokens, now)
        self._charge(plan.requests, now, 1)
        self._charge(plan.tokens, now, granted)
        for slots in plan.concurrency:
            self._taken[slots.key] = self._taken.get(slots.key, 0) + 1
        if len(self._tats) > known:
            self._sweep(now, _SWEEP * (len(self._tats) - known))
        return Grant(self, plan, "", granted, requests - 1, tokens - granted)

    def settle(self, grant: Grant, unused: int) -> None:
        """See Store."""
        if unused:
            self._correct(grant.plan.tokens, unused)
        taken = self._taken
        for slots in grant.plan.concurrency:
            left = taken[slots.key] - 1
            if left:
                taken[slots.key] = left
            else:
                del taken[slots.key]

    async def stop(self) -> None:
        """See Store. There is nothing to send."""

    def _units(self, buckets: Iterable[Bucket], now: int) -> int:
        """The number of units that each of the buckets has."""
        get = self._tats.get
        found = UNLIMITED
        for bucket in buckets:
            limit = bucket.limit
            units = gcra.room(get(bucket.key, 0), now, limit) // limit.interval
            if units < found:
                found = units
        return found if found > 0 else 0

    def _full(self, plan: Plan) -> bool:
        taken = self._taken
        for slots in plan.concurrency:  # noqa: SIM110 - a generator would cost more than the rest
            if taken.get(slots.key, 0) >= slots.maximum:
                return True
        return False

    def _charge(self, buckets: Iterable[Bucket], now: int, units: int) -> None:
        tats = self._tats
        if units:
            for bucket in buckets:
                tats[bucket.key] = gcra.charge(tats.get(bucket.key, 0), now, bucket.limit, units)

    def _correct(self, buckets: Iterable[Bucket], unused: int) -> None:
        now, tats = self._now(), self._tats
        if unused < 0:
            self._charge(buckets, now, -unused)
            return
        for bucket in buckets:
            tat = tats.get(bucket.key)
            if tat is not None:
                tats[bucket.key] = gcra.refund(tat, now, bucket.limit, unused)

    def _refusal(self, plan: Plan, now: int, least: int) -> Refusal:
        """The limit that refuses. Of equal waits the first counts."""
        for slots in plan.concurrency:
            if self._taken.get(slots.key, 0) >= slots.maximum:
                return Refusal(slots, None)
        waits = [(self._wait(bucket, now, 1), bucket) for bucket in plan.requests]
        waits += [(self._wait(bucket, now, least), bucket) for bucket in plan.tokens]
        wait, bucket = max(waits, key=lambda each: each[0])
        return Refusal(bucket, wait)

    def _wait(self, bucket: Bucket, now: int, units: int) -> int:
        return gcra.wait(gcra.room(self._tats.get(bucket.key, 0), now, bucket.limit), bucket.limit, units)

    def _now(self) -> int:
        now = self._clock()
        if now > self._latest:
            self._latest = now
        return self._latest

    def _make_room(self, plan: Plan, now: int) -> None:
        """Raises Unavailable where there is no room for a new caller."""
        new = [bucket for bucket in (*plan.requests, *plan.tokens) if bucket.key not in self._tats]
        self._sweep(now, _SWEEP * len(new))
        if new and len(self._tats) >= self._max_buckets:
            raise errors.Unavailable("too many callers at once", reason="OVERLOADED", retry_after=1.0)

    def _sweep(self, now: int, count: int) -> None:
        """Examines the least recently used buckets: forgets the full ones and moves the others to the back."""
        for _ in range(min(count, len(self._tats))):
            key, tat = self._tats.popitem(last=False)
            if tat > now:
                self._tats[key] = tat
