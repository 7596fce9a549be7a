"""A bound on the calls or tokens in progress, of which no tenant can take all.

A tenant may hold at most three times the free capacity. Alone it fills three quarters of the capacity. Two tenants that
flood come to hold 3/7 each, once the first tenant's earlier work is done. So a tenant that holds nothing always finds
free capacity. A fixed share for each tenant would waste the shares of idle tenants.

Source: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions
on Networking 6(2), 1998.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_TIMES_FREE: Final = 3

Refusal = Callable[[], Exception]
"""Makes the error of one refused call. Each call needs an error of its own, because raising an error changes it."""


class _Waiter(NamedTuple):
    weight: int
    admitted: asyncio.Future[None]


class TenantCapacity:
    """A bound on the calls or tokens in progress. Belongs to one event loop."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        self._of: dict[str, int] = {}
        self._waiting: dict[str, deque[_Waiter]] = {}

    def of(self, tenant: str) -> int:
        """The capacity that a tenant holds."""
        return self._of.get(tenant, 0)

    @property
    def tenants(self) -> int:
        """The number of tenants that hold capacity."""
        return len(self._of)

    def fits(self, tenant: str, weight: int) -> bool:
        """Whether a tenant may take `weight` now. If nothing is held, any weight fits: no call is refused for ever."""
        if self.held == 0:
            return True
        free = self.capacity - self.held - weight
        mine = self._of.get(tenant, 0)
        return free >= 0 and (mine == 0 or mine + weight <= _TIMES_FREE * free)

    def take(self, tenant: str, weight: int) -> None:
        """Takes `weight`, which must fit."""
        self.held += weight
        self._of[tenant] = self._of.get(tenant, 0) + weight

    def give(self, tenant: str, weight: int) -> None:
        """Releases `weight` and admits waiting calls that fit, first those of the tenant that holds least."""
        self.held -= weight
        left = self._of[tenant] - weight
        if left:
            self._of[tenant] = left
        else:
            del self._of[tenant]
        if self._waiting:
            self._admit()

    async def wait(self, tenant: str, weight: int) -> None:
        """Takes `weight` as soon as it fits. A tenant's waiting calls keep their order. The caller bounds the time."""
        if tenant not in self._waiting and self.fits(tenant, weight):
            self.take(tenant, weight)
            return
        waiter = _Waiter(weight, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(tenant, deque()).append(waiter)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
                self.give(tenant, weight)  # it was admitted and cancelled at the same moment
            else:
                self._leave(tenant, waiter)
            raise

    def close(self, why: Refusal) -> None:
        """Refuses all waiting calls."""
        waiting, self._waiting = self._waiting, {}
        for waiter in [waiter for queue in waiting.values() for waiter in queue]:
            if not waiter.admitted.done():
                waiter.admitted.set_exception(why())

    def _leave(self, tenant: str, waiter: _Waiter) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._waiting[tenant]
            self._admit()  # the next waiting call may be smaller

    def _admit(self) -> None:
        while self._waiting:
            fitting = [tenant for tenant, queue in self._waiting.items() if self.fits(tenant, queue[0].weight)]
            if not fitting:
                return
            tenant = min(fitting, key=self.of)
            queue = self._waiting[tenant]
            waiter = queue.popleft()
            if not queue:
                del self._waiting[tenant]
            if not waiter.admitted.done():
                self.take(tenant, waiter.weight)
                waiter.admitted.set_result(None)
