"""Who is let in: a call takes a place for each candidate before any work is done for it, and its prompt's tokens before
it is queued.

A unary call for which there is no place is refused at once and told when one will be free, by how fast they became free
of late; a stream waits. A call whose time does not even suffice to read its own prompt is refused, too.
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
"""Seconds that a stream waits whose caller has no deadline."""
_FIRST_GUESS: Final = 1.0
_NEWEST: Final = 0.2
"""What the newest interval counts for in their running mean."""


class Admission:
    """The places before one model. For one event loop. `reading` tells how long a prompt takes."""

    def __init__(
        self, candidates: int, tokens: int, reading: LatencyModel, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.candidates = TenantCapacity(candidates)
        self.tokens = TenantCapacity(tokens)
        self._reading = reading
        self._clock = clock
        self._freed_at: float | None = None
        self._seconds_each: float | None = None

    def close(self, why: Refusal | None = None) -> None:
        """Those who wait are told `why`, or that the server stops. Those who come later hear it from the engine."""
        self.candidates.close(why or draining)
        self.tokens.close(why or draining)

    @asynccontextmanager
    async def places(self, tenant: str, count: int, *, wait: bool, remaining: float | None) -> AsyncIterator[None]:
        """Holds places for `count` candidates. Raises Unavailable (OVERLOADED) where there are none, unless `wait`,
        which waits for as long as the caller has: then DeadlineExceeded.
        """
        await self._take(self.candidates, tenant, count, wait=wait, remaining=remaining)
        try:
            yield
        finally:
            self.candidates.give(tenant, count)
            self._freed(count)

    @asynccontextmanager
    async def prompt(self, tenant: str, length: int, *, wait: bool, remaining: float | None) -> AsyncIterator[None]:
        """Holds a prompt's tokens. Raises as `places` does, and DeadlineExceeded where the time is too short to read
        it: the caller is not told to try again, for which there is less time still.
        """
        needed = self._reading.seconds(length)
        if remaining is not None and remaining < needed:
            raise DeadlineExceeded(f"reading the input takes {needed:.2g} s and {max(remaining, 0.0):.2g} s are left")
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
                raise DeadlineExceeded("the deadline passed before there was a place") from None
        elif room.fits(tenant, weight):
            room.take(tenant, weight)
        else:
            raise self._overloaded(weight if room is self.candidates else 1)

    def _overloaded(self, count: int) -> Unavailable:
        each = _FIRST_GUESS if self._seconds_each is None else self._seconds_each
        after = min(_RETRY_MOST, max(_RETRY_LEAST, count * each))
        return Unavailable("the queue is full", reason="OVERLOADED", retry_after=after)

    def _freed(self, count: int) -> None:
        """Learns how fast places become free while there is work all the time."""
        now = self._clock()
        if self._freed_at is not None:
            newest = (now - self._freed_at) / count
            each = newest if self._seconds_each is None else self._seconds_each
            self._seconds_each = each + _NEWEST * (newest - each)
        self._freed_at = now if self.candidates.held else None
