"""Who is let in: a call takes its place before its inputs are read, and their tokens before they are queued.

A unary call for which there is no place is refused at once, and told when what is in hand now will have been done; a
stream waits. A call whose time is too short is refused too, before it takes any of the model's.
"""

from __future__ import annotations

import asyncio
from typing import Final

from meshgate.errors import DeadlineExceeded, Unavailable
from services.batching.bounds import Bounds, Counts
from services.batching.latency_model import LatencyModel
from services.batching.tenant_capacity import Refusal, TenantCapacity

_RETRY_LEAST: Final = 0.05
_RETRY_MOST: Final = 30.0


class Admission:
    """The places before one model. For one event loop."""

    def __init__(self, bounds: Bounds, pace: LatencyModel, counts: Counts) -> None:
        self.calls = TenantCapacity(bounds.queue_calls)
        self.tokens = TenantCapacity(bounds.queue_tokens)
        self.empty = asyncio.Event()
        """Set while no call is in hand."""
        self.empty.set()
        self._interactive = TenantCapacity(bounds.queue_tokens)
        """Those of `tokens` that don't let others go first: bounds nothing, tells how long a call will wait."""
        self._pace = pace
        self._counts = counts
        self._closed: Refusal | None = None

    def close(self, why: Refusal) -> None:
        """Lets in nobody from here on, nor those who wait already. The first reason stays."""
        self._closed = self._closed or why
        self.calls.close(self._closed)
        self.tokens.close(self._closed)

    async def enter(self, tenant: str, *, wait: bool) -> None:
        """Takes a call's place; `leave` must follow. Raises Unavailable."""
        self._check_open()
        if wait:
            await self.calls.wait(tenant, 1)
        elif self.calls.fits(tenant, 1) and self.tokens.fits(tenant, 1):
            self.calls.take(tenant, 1)
        else:
            raise self._overloaded()
        self.empty.clear()

    def leave(self, tenant: str) -> None:
        """Gives a call's place back."""
        self.calls.give(tenant, 1)
        if not self.calls.held:
            self.empty.set()

    async def take(self, tenant: str, weight: int, *, yields: bool, wait: bool, remaining: float | None) -> None:
        """Takes so many tokens; `give` must follow. Raises Unavailable or DeadlineExceeded."""
        self._check_open()
        if remaining is not None:
            self._check_time(tenant, weight, remaining, yields=yields)
        if wait:
            await self.tokens.wait(tenant, weight)
        elif self.tokens.fits(tenant, weight):
            self.tokens.take(tenant, weight)
        else:
            raise self._overloaded()
        if not yields:
            self._interactive.take(tenant, weight)
        if self._closed:
            self.give(tenant, weight, yields=yields)
            raise self._closed()

    def give(self, tenant: str, weight: int, *, yields: bool) -> None:
        """Gives tokens back."""
        self.tokens.give(tenant, weight)
        if not yields:
            self._interactive.give(tenant, weight)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed()

    def _overloaded(self) -> Unavailable:
        self._counts.refused += 1
        after = min(_RETRY_MOST, max(_RETRY_LEAST, self._pace.seconds(self.tokens.held)))
        return Unavailable("the queue is full", reason="OVERLOADED", retry_after=after)

    def _check_time(self, tenant: str, weight: int, remaining: float, *, yields: bool) -> None:
        """Not refused as OVERLOADED: that invites to try again, for which there is less time still."""
        needed = self._estimate(tenant, weight, yields=yields)
        if remaining < needed:
            self._counts.late += 1
            raise DeadlineExceeded(f"about {needed:.2g} s are needed and {max(remaining, 0.0):.2g} s are left")

    def _estimate(self, tenant: str, weight: int, *, yields: bool) -> float:
        """Seconds until so many more tokens of a tenant will have been read. Interactive calls have the model to
        themselves, and each tenant an equal share of it.
        """
        load = self.tokens if yields else self._interactive
        mine = load.of(tenant)
        tenants = load.tenants if mine else load.tenants + 1
        return self._pace.seconds(min(load.held + weight, (mine + weight) * tenants))
