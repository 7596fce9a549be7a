"""A queue that is fair between tenants: each waiting tenant gets an equal share of the model's tokens.

Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996). Each tenant has a start tag:
the tokens that it was served, counted from the virtual time at its arrival. The tenant with the smallest tag is next. A
tenant with a single input waits for at most one input of each other tenant, however long their queues are. An idle
tenant saves no credit. An input is charged when it is taken and not when it arrives, so a withdrawn input is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Final, Generic, Protocol, TypeVar

_REMEMBERED: Final = 1024
"""The number of idle tenants that are kept before those without debt are removed."""


class Waiting(Protocol):
    """A queued input."""

    @property
    def tenant(self) -> str:
        """The tenant that it belongs to."""

    @property
    def length(self) -> int:
        """Its tokens, which are its cost."""

    @property
    def gone(self) -> bool:
        """Whether its call has ended."""


EntryT = TypeVar("EntryT", bound=Waiting)


class _Flow(Generic[EntryT]):
    """The queued inputs of one tenant, oldest first."""

    __slots__ = ("entries", "gone", "number", "start")

    def __init__(self, start: int, number: int) -> None:
        self.entries: deque[EntryT] = deque()
        self.start = start
        self.number = number
        self.gone = 0

    def pop(self) -> EntryT | None:
        while self.entries:
            entry = self.entries.popleft()
            if not entry.gone:
                return entry
            self.gone -= 1
        return None


class FairQueue(Generic[EntryT]):
    """Inputs of several tenants. Plain state; no clock, no thread."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow[EntryT]] = {}
        self._idle: dict[str, int] = {}
        self._virtual_time = 0
        """The virtual time: the start tag of the tenant that was served last."""
        self._numbers = 0

    def __bool__(self) -> bool:
        return bool(self._flows)

    def add(self, tenant: str, entries: Sequence[EntryT]) -> None:
        """Appends inputs of one tenant."""
        flow = self._flows.get(tenant)
        if flow is None:
            self._numbers += 1
            start = max(self._idle.pop(tenant, 0), self._virtual_time)
            flow = self._flows[tenant] = _Flow(start, self._numbers)
        flow.entries.extend(entries)

    def withdraw(self, tenant: str, count: int) -> None:
        """Reports that `count` inputs of a tenant are gone. They are removed once they are half of its queue."""
        flow = self._flows.get(tenant)
        if flow is None:
            return
        flow.gone += count
        if 2 * flow.gone > len(flow.entries):
            flow.entries = deque(entry for entry in flow.entries if not entry.gone)
            flow.gone = 0
            if not flow.entries:
                self._retire(tenant, flow)

    def draw(self, most: int) -> list[EntryT]:
        """Removes and returns the next `most` inputs in order. `settle` must follow."""
        turns = [(flow.start, flow.number, flow) for flow in self._flows.values()]
        heapify(turns)
        drawn: list[EntryT] = []
        while turns and len(drawn) < most:
            start, number, flow = turns[0]
            entry = flow.pop()
            if entry is None:
                heappop(turns)
                continue
            if not drawn:
                self._virtual_time = max(self._virtual_time, start)
            drawn.append(entry)
            heapreplace(turns, (start + entry.length, number, flow))
        return drawn

    def settle(self, drawn: Sequence[EntryT], taken: Collection[int]) -> None:
        """Charges the inputs at the indices `taken` to their tenants and puts the others back in their order."""
        for index in range(len(drawn) - 1, -1, -1):
            entry = drawn[index]
            flow = self._flows[entry.tenant]
            if index in taken:
                flow.start += entry.length
            else:
                flow.entries.appendleft(entry)
        for tenant in [tenant for tenant, flow in self._flows.items() if not flow.entries]:
            self._retire(tenant, self._flows[tenant])

    def clear(self) -> list[EntryT]:
        """Removes and returns all queued inputs."""
        left = [entry for flow in self._flows.values() for entry in flow.entries if not entry.gone]
        self._flows.clear()
        self._idle.clear()
        self._virtual_time = 0
        return left

    def _retire(self, tenant: str, flow: _Flow[EntryT]) -> None:
        """Removes a tenant without queued inputs. It keeps its debt as long as another tenant waits."""
        del self._flows[tenant]
        if not self._flows:
            self._idle.clear()
            self._virtual_time = 0
            return
        self._idle[tenant] = flow.start
        if len(self._idle) > _REMEMBERED:
            self._idle = {name: start for name, start in self._idle.items() if start > self._virtual_time}
