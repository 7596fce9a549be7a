"""Failover: while the shared store is down, calls are refused, or each process admits its share."""

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
"""Consecutive failures before the circuit opens: one slow answer is no outage."""
_AGAIN: Final = 1_000_000_000
"""Nanoseconds between two tries while the circuit is open: the longest delay with which it closes."""


class CircuitBreaker:
    """Whether a call to the store is worthwhile. While the circuit is open, one call now and then is let through."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """`clock` is in nanoseconds."""
        self._clock = clock
        self._failures = 0
        self._next = 0

    def allows(self) -> bool:
        """Whether to call the store now."""
        if self._failures < _FAILURES:
            return True
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + _AGAIN
        return True

    def failed(self) -> bool:
        """Records a failure. True when it opens the circuit."""
        self._failures += 1
        self._next = self._clock() + _AGAIN
        return self._failures == _FAILURES

    def worked(self) -> bool:
        """Records a success. True when it closes the circuit."""
        was_open, self._failures = self._failures >= _FAILURES, 0
        return was_open


class FailoverStore:
    """The shared store, and the local store that stands in for it. `local` None refuses calls instead."""

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

        `address` is the store's address, for the log.
        """
        self._shared = shared
        self._local = local
        self._processes = processes
        self._counts = counts
        self._circuit = circuit or CircuitBreaker()
        self._address = address

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """See Store. Raises Unavailable (LIMITS_UNAVAILABLE) where no local store stands in."""
        if self._circuit.allows():
            try:
                answer = await self._shared.take(plan, least, cost)
            except StoreDown as error:
                if self._circuit.failed():
                    self._report("down", why=cause(error.__cause__))
            else:
                if self._circuit.worked():
                    self._report("up")
                return answer
        return await self._take_without_store(plan, least, cost)

    def settle(self, grant: Grant, unused: int) -> None:
        """See Store: the store that made the grant settles it."""
        grant.store.settle(grant, unused)

    async def stop(self) -> None:
        """See Store."""
        await self._shared.stop()

    async def _take_without_store(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        if self._local is None:
            self._counts["denied"] += 1
            raise errors.Unavailable("the limits store is unavailable", reason="LIMITS_UNAVAILABLE", retry_after=1.0)
        self._counts["local"] += 1
        part = plan.part(self._processes)
        return await self._local.take(part, min(least, part.max_tokens), min(cost, part.max_tokens))

    def _report(self, what: str, **why: str) -> None:
        self._counts[what] += 1
        _log.warning("limits store: %s", what, extra={"store": what, "address": self._address, **why})
