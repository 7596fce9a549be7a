"""The queue of requests: fair between tenants, in two priorities.

The Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). Each tenant's counter
is the number of tokens that the model has prefilled and generated for it. Of the waiting tenants, the one with the
least counter is next. A prompt is charged when the request leaves the queue; output is charged as it is generated,
because its length is not known beforehand. A tenant that comes back starts at the least counter of the waiting tenants,
so that idle time saves nothing up.

Interactive requests go first. So that batch traffic is never starved, a batch request is next after INTERACTIVE_STREAK
interactive ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from services.generation.engine.interface import Priority
from services.generation.scheduler.sequence import GenerationRequest

INTERACTIVE_STREAK: Final = 8
"""The most interactive requests in a row that leave the queue while batch traffic waits."""
_REMEMBERED: Final = 1024
"""How many tenants without a waiting request keep their counters."""


class VirtualTokenCounter:
    """The waiting requests and each tenant's counter. Plain state, for one thread."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._waiting: dict[Priority, dict[str, deque[GenerationRequest]]] = {priority: {} for priority in Priority}
        self._streak = 0
        self._reached = 0
        """The counter of the tenant that was served last: the least that a new tenant starts from."""

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def __iter__(self) -> Iterator[GenerationRequest]:
        for tenants in self._waiting.values():
            for requests in tenants.values():
                yield from requests

    def add(self, request: GenerationRequest) -> None:
        """Appends a request to those of its tenant."""
        tenant = request.job.tenant
        if not self._waits(tenant):
            self._served[tenant] = max(self._served.get(tenant, 0), self._least())
        self._waiting[request.job.priority].setdefault(tenant, deque()).append(request)
        self._forget()

    def put_back(self, request: GenerationRequest) -> None:
        """Puts a request back as its tenant's first, and takes the charge for its prompt back. A batch request is then
        the next of its kind.
        """
        priority, tenant = request.job.priority, request.job.tenant
        self._waiting[priority].setdefault(tenant, deque()).appendleft(request)
        self.charge(tenant, -len(request.job.prompt))
        if priority is Priority.BATCH:
            self._streak = INTERACTIVE_STREAK

    def next(self, fits: Callable[[GenerationRequest], bool] = lambda _: True) -> GenerationRequest | None:
        """Removes and returns the next request, of the tenants whose oldest request `fits`, and charges its prompt.

        Returns None where none fits.
        """
        for priority in self._order():
            tenants = self._waiting[priority]
            fitting = [tenant for tenant, requests in tenants.items() if fits(requests[0])]
            if fitting:
                return self._take(priority, min(fitting, key=self._served.__getitem__))
        return None

    def served(self, tenant: str) -> int:
        """A tenant's counter."""
        return self._served.get(tenant, self._reached)

    def charge(self, tenant: str, tokens: int) -> None:
        """Adds generated tokens to a tenant's counter; negative takes a charge back."""
        self._served[tenant] = self._served.get(tenant, self._reached) + tokens

    def remove(self, gone: Callable[[GenerationRequest], bool]) -> None:
        """Removes the requests for which `gone` is true."""
        for tenants in self._waiting.values():
            for tenant, requests in list(tenants.items()):
                left = deque(request for request in requests if not gone(request))
                if left:
                    tenants[tenant] = left
                else:
                    del tenants[tenant]

    def clear(self) -> None:
        """Removes every request."""
        for tenants in self._waiting.values():
            tenants.clear()

    def _order(self) -> tuple[Priority, Priority]:
        if self._streak >= INTERACTIVE_STREAK:
            return Priority.BATCH, Priority.INTERACTIVE
        return Priority.INTERACTIVE, Priority.BATCH

    def _take(self, priority: Priority, tenant: str) -> GenerationRequest:
        tenants = self._waiting[priority]
        requests = tenants[tenant]
        request = requests.popleft()
        if not requests:
            del tenants[tenant]
        waits = priority is Priority.INTERACTIVE and bool(self._waiting[Priority.BATCH])
        self._streak = self._streak + 1 if waits else 0
        self._reached = max(self._reached, self._served[tenant])
        self.charge(tenant, len(request.job.prompt))
        return request

    def _waits(self, tenant: str) -> bool:
        return any(tenant in tenants for tenants in self._waiting.values())

    def _least(self) -> int:
        counters = [self._served[tenant] for tenants in self._waiting.values() for tenant in tenants]
        return min(counters, default=self._reached)

    def _forget(self) -> None:
        """Drops counters of tenants that do not wait, the smallest first."""
        if len(self._served) > 2 * _REMEMBERED:
            most = sorted(self._served.items(), key=lambda each: -each[1])
            self._served = dict(each for place, each in enumerate(most) if place < _REMEMBERED or self._waits(each[0]))
