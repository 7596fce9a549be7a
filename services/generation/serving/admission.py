"""Admission: a call takes a slot for each candidate before any work is done for it, and room for its prompt's tokens
before it is queued.

A unary call for which there is no slot is refused at once, with a retry delay that follows from how fast slots became
free lately. A stream waits. A call whose deadline is too near to prefill its own prompt is refused as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from meshgate.errors import DeadlineExceeded, Unavailable
from services.batching.latency_model import LatencyModel
from services.batching.tenant_capacity import Refusal, TenantCapacity
from services.common.drain_errors import draining

_RETRY_LEAST: Final = 0.05
_RETRY_MOST: Final = 30.0
_WAIT_MOST: Final = 600.0
"""Seconds that a stream waits at most when its caller set no deadline."""
_FIRST_GUESS: Final = 1.0
_NEWEST: Final = 0.2
"""The weight of the newest interval in the running mean."""


class Admission:
    """The slots of one model, and the tokens of the prompts in hand. For one event loop."""

    def __init__(
        self, candidates: int, tokens: int, prefill_latency: LatencyModel, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.candidates = TenantCapacity(candidates)
        self.tokens = TenantCapacity(tokens)
        self._prefill_latency = prefill_latency
        self._clock = clock
        self._freed_at: float | None = None
        self._seconds_each: float | None = None

    def close(self, why: Refusal | None = None) -> None:
        """Fails the calls that wait with `why`, or DRAINING. Later calls get the engine's error."""
        self.candidates.close(why or draining)
        self.tokens.close(why or draining)

    @asynccontextmanager
    async def slots(self, tenant: str, count: int, *, wait: bool, remaining: float | None) -> AsyncIterator[None]:
        """Holds slots for `count` candidates during the block. `remaining` is in seconds; None without a deadline.

        Raises Unavailable (OVERLOADED) where there are too few. With `wait` the call waits for them instead, and
        DeadlineExceeded is raised when its time is over.
        """
        await self._take(self.candidates, tenant, count, wait=wait, remaining=remaining)
        try:
            yield
        finally:
            self.candidates.give(tenant, count)
            self._freed(count)

    @asynccontextmanager
    async def prompt(self, tenant: str, length: int, *, wait: bool, remaining: float | None) -> AsyncIterator[None]:
        """Holds room for a prompt's tokens during the block. Raises as `slots` does.

        Raises DeadlineExceeded where the remaining time is too short to prefill the prompt. The error suggests no
        retry, because a retry would have even less time.
        """
        needed = self._prefill_latency.seconds(length)
        if remaining is not None and remaining < needed:
            raise DeadlineExceeded(
                f"prefilling the input takes {needed:.2g} s, but only {max(remaining, 0.0):.2g} s are left"
            )
        await self._take(self.tokens, tenant, length, wait=wait, remaining=remaining)
        try:
            yield
        finally:
            self.tokens.give(tenant, length)

    async def _take(
        self, room: TenantCapacity, tenant: str, weight: int, *, wait: bool, remaining: float | None
    ) -> None:
        if wait:
            try:
                async with asyncio.timeout(_WAIT_MOST if remaining is None else remaining):
                    await room.wait(tenant, weight)
            except TimeoutError:
                raise DeadlineExceeded("the deadline passed before a slot was free") from None
        elif room.fits(tenant, weight):
            room.take(tenant, weight)
        else:
            raise self._overloaded(weight if room is self.candidates else 1)

    def _overloaded(self, count: int) -> Unavailable:
        each = _FIRST_GUESS if self._seconds_each is None else self._seconds_each
        after = min(_RETRY_MOST, max(_RETRY_LEAST, count * each))
        return Unavailable("the queue is full", reason="OVERLOADED", retry_after=after)

    def _freed(self, count: int) -> None:
        """Learns how fast slots become free while there is work all the time."""
        now = self._clock()
        if self._freed_at is not None:
            newest = (now - self._freed_at) / count
            each = newest if self._seconds_each is None else self._seconds_each
            self._seconds_each = each + _NEWEST * (newest - each)
        self._freed_at = now if self.candidates.held else None
