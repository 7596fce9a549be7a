"""Admission: a call takes a slot before its inputs are tokenised, and capacity for its tokens before they are queued.

A unary call without a free slot is refused at once, with the time after which the present queue will be done. A stream
waits. A call whose deadline is too near is refused as well, before it uses the model.
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
    """Admits the calls of one model. Belongs to one event loop."""

    def __init__(self, bounds: Bounds, latency: LatencyModel, counts: Counts) -> None:
        self.calls = TenantCapacity(bounds.queue_calls)
        self.tokens = TenantCapacity(bounds.queue_tokens)
        self.empty = asyncio.Event()
        """Set while no call is in progress."""
        self.empty.set()
        self._interactive = TenantCapacity(bounds.queue_tokens)
        """The interactive part of `tokens`. It bounds nothing; it serves the estimate of a call's waiting time."""
        self._latency = latency
        self._counts = counts
        self._closed: Refusal | None = None

    def close(self, why: Refusal) -> None:
        """Refuses every call from now on, waiting calls included. The first reason stays."""
        self._closed = self._closed or why
        self.calls.close(self._closed)
        self.tokens.close(self._closed)

    async def enter(self, tenant: str, *, wait: bool) -> None:
        """Takes the slot of a call; `leave` must follow. Raises Unavailable."""
        self._check_open()
        if wait:
            await self.calls.wait(tenant, 1)
        elif self.calls.fits(tenant, 1) and self.tokens.fits(tenant, 1):
            self.calls.take(tenant, 1)
        else:
            raise self._overloaded()
        self.empty.clear()

    def leave(self, tenant: str) -> None:
        """Releases the slot of a call."""
        self.calls.give(tenant, 1)
        if not self.calls.held:
            self.empty.set()

    async def take(self, tenant: str, weight: int, *, yields: bool, wait: bool, remaining: float | None) -> None:
        """Takes capacity for `weight` tokens; `give` must follow. Raises Unavailable or DeadlineExceeded."""
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
        """Releases the capacity of `weight` tokens."""
        self.tokens.give(tenant, weight)
        if not yields:
            self._interactive.give(tenant, weight)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed()

    def _overloaded(self) -> Unavailable:
        self._counts.refused += 1
        after = min(_RETRY_MOST, max(_RETRY_LEAST, self._latency.seconds(self.tokens.held)))
        return Unavailable("the queue is full", reason="OVERLOADED", retry_after=after)

    def _check_time(self, tenant: str, weight: int, remaining: float, *, yields: bool) -> None:
        """Raises DeadlineExceeded, not OVERLOADED: a retry would have even less time."""
        needed = self._estimate(tenant, weight, yields=yields)
        if remaining < needed:
            self._counts.late += 1
            raise DeadlineExceeded(f"about {needed:.2g} s are needed and {max(remaining, 0.0):.2g} s are left")

    def _estimate(self, tenant: str, weight: int, *, yields: bool) -> float:
        """Seconds until `weight` more tokens of a tenant will have run. Interactive calls do not wait for batch
        traffic, and each tenant gets an equal share of the model.
        """
        load = self.tokens if yields else self._interactive
        mine = load.of(tenant)
        tenants = load.tenants if mine else load.tenants + 1
        return self._latency.seconds(min(load.held + weight, (mine + weight) * tenants))
