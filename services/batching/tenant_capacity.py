"""A bound on what is in hand, calls or tokens, of which no tenant gets all.

A tenant may hold three times what is free (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory
Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998): alone it fills three quarters of the room, and two
that flood come to hold 3/7 each, as what the first had is done. So there is a place for one who has none yet. A fixed
share for each would waste the room of those who are not there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_TIMES_FREE: Final = 3

Refusal = Callable[[], Exception]
"""Makes the error for one who is not let in: each gets one of its own, since raising writes to it."""


class _Waiter(NamedTuple):
    weight: int
    let_in: asyncio.Future[None]


class TenantCapacity:
    """A bound on what is in hand. For one event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._of: dict[str, int] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}

    def of(self, tenant: str) -> int:
        """What a tenant holds."""
        return self._of.get(tenant, 0)

    @property
    def tenants(self) -> int:
        """How many hold something."""
        return len(self._of)

    def fits(self, tenant: str, weight: int) -> bool:
        """Whether a tenant may take so much now. An empty room takes anything: no call is too large for ever."""
        if self.held == 0:
            return True
        free = self.capacity - self.held - weight
        mine = self._of.get(tenant, 0)
        return free >= 0 and (mine == 0 or mine + weight <= _TIMES_FREE * free)

    def take(self, tenant: str, weight: int) -> None:
        """Takes so much, which must fit."""
        self.held += weight
        self._of[tenant] = self._of.get(tenant, 0) + weight

    def give(self, tenant: str, weight: int) -> None:
        """Gives so much back, and lets in who waits for it: of those that fit, the tenant that holds least."""
        self.held -= weight
        left = self._of[tenant] - weight
        if left:
            self._of[tenant] = left
        else:
            del self._of[tenant]
        if self._waiting:
            self._let_in()

    async def wait(self, tenant: str, weight: int) -> None:
        """Takes so much as soon as it fits; a tenant's own are let in in order. The caller bounds the time."""
        if tenant not in self._waiting and self.fits(tenant, weight):
            self.take(tenant, weight)
            return
        waiter = _Waiter(weight, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(tenant, deque()).append(waiter)
        try:
            await waiter.let_in
        except asyncio.CancelledError:
            if waiter.let_in.done() and not waiter.let_in.cancelled() and waiter.let_in.exception() is None:
                self.give(tenant, weight)  # it was let in, and left at the same moment
            else:
                self._leave(tenant, waiter)
            raise

    def close(self, why: Refusal) -> None:
        """Nobody who waits is let in any more."""
        waiting, self._waiting = self._waiting, {}
        for waiter in [waiter for line in waiting.values() for waiter in line]:
            if not waiter.let_in.done():
                waiter.let_in.set_exception(why())

    def _leave(self, tenant: str, waiter: _Waiter) -> None:
        line = self._waiting.get(tenant)
        if line is not None and waiter in line:
            line.remove(waiter)
            if not line:
                del self._waiting[tenant]
            self._let_in()  # who was behind may be smaller

    def _let_in(self) -> None:
        while self._waiting:
            fitting = [tenant for tenant, line in self._waiting.items() if self.fits(tenant, line[0].weight)]
            if not fitting:
                return
            tenant = min(fitting, key=self.of)
            line = self._waiting[tenant]
            waiter = line.popleft()
            if not line:
                del self._waiting[tenant]
            if not waiter.let_in.done():
                self.take(tenant, waiter.weight)
                waiter.let_in.set_result(None)
