"""Who waits for the model, and whose turn it is: fair between tenants, in two priorities.

The Virtual Token Counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024). Each tenant's counter
is the tokens that the model has read and made for it; of those who wait, the least counter is next. Prompts are charged
when they are taken, output as it is made, because nobody knows beforehand how long it will be. A tenant that comes back
is lifted to the least counter of those who wait: who was idle has saved nothing up.

Interactive calls go first. So that batch traffic is never starved, a batch call that was passed PATIENCE times is next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from services.generation.engine.interface import Priority
from services.generation.scheduler.sequence import Group

PATIENCE: Final = 8
"""So many interactive calls in a row may be taken while batch traffic waits."""
_REMEMBERED: Final = 1024
"""Tenants whose counters are kept when they have nothing waiting."""


class Line:
    """What waits. Plain state, for one thread."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._waiting: dict[Priority, dict[str, deque[Group]]] = {priority: {} for priority in Priority}
        self._passed = 0
        self._reached = 0
        """The counter of whoever's turn was last: the least that a newcomer starts from."""

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def __iter__(self) -> Iterator[Group]:
        for tenants in self._waiting.values():
            for groups in tenants.values():
                yield from groups

    def add(self, group: Group) -> None:
        """Appends a call to its tenant's own."""
        tenant = group.job.tenant
        if not self._waits(tenant):
            self._served[tenant] = max(self._served.get(tenant, 0), self._least())
        self._waiting[group.job.priority].setdefault(tenant, deque()).append(group)
        self._forget()

    def put_back(self, group: Group) -> None:
        """Gives a call that was taken its place back, its tenant's first, and what it was charged; a batch call is the
        next of its kind that is taken.
        """
        priority, tenant = group.job.priority, group.job.tenant
        self._waiting[priority].setdefault(tenant, deque()).appendleft(group)
        self.charge(tenant, -len(group.job.prompt))
        if priority is Priority.BATCH:
            self._passed = PATIENCE

    def next(self, fits: Callable[[Group], bool] = lambda _: True) -> Group | None:
        """Removes and returns whose turn it is, of the tenants whose oldest call `fits`; None where there is none.
        Charges its prompt.
        """
        for priority in self._order():
            tenants = self._waiting[priority]
            fitting = [tenant for tenant, groups in tenants.items() if fits(groups[0])]
            if fitting:
                return self._take(priority, min(fitting, key=self._served.__getitem__))
        return None

    def served(self, tenant: str) -> int:
        """A tenant's counter."""
        return self._served.get(tenant, self._reached)

    def charge(self, tenant: str, tokens: int) -> None:
        """The model has made so many tokens for a tenant."""
        self._served[tenant] = self._served.get(tenant, self._reached) + tokens

    def remove(self, gone: Callable[[Group], bool]) -> None:
        """Removes the calls that are gone."""
        for tenants in self._waiting.values():
            for tenant, groups in list(tenants.items()):
                left = deque(group for group in groups if not gone(group))
                if left:
                    tenants[tenant] = left
                else:
                    del tenants[tenant]

    def clear(self) -> None:
        """Removes all."""
        for tenants in self._waiting.values():
            tenants.clear()

    def _order(self) -> tuple[Priority, Priority]:
        if self._passed >= PATIENCE:
            return Priority.BATCH, Priority.INTERACTIVE
        return Priority.INTERACTIVE, Priority.BATCH

    def _take(self, priority: Priority, tenant: str) -> Group:
        tenants = self._waiting[priority]
        groups = tenants[tenant]
        group = groups.popleft()
        if not groups:
            del tenants[tenant]
        waits = priority is Priority.INTERACTIVE and bool(self._waiting[Priority.BATCH])
        self._passed = self._passed + 1 if waits else 0
        self._reached = max(self._reached, self._served[tenant])
        self.charge(tenant, len(group.job.prompt))
        return group

    def _waits(self, tenant: str) -> bool:
        return any(tenant in tenants for tenants in self._waiting.values())

    def _least(self) -> int:
        counters = [self._served[tenant] for tenants in self._waiting.values() for tenant in tenants]
        return min(counters, default=self._reached)

    def _forget(self) -> None:
        """Of those who don't wait, the ones that were served least."""
        if len(self._served) > 2 * _REMEMBERED:
            most = sorted(self._served.items(), key=lambda each: -each[1])
            self._served = dict(each for place, each in enumerate(most) if place < _REMEMBERED or self._waits(each[0]))
