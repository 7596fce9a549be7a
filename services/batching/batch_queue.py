"""The queue before the model: two priorities, each fair between tenants, and the next batch.

Interactive inputs go first; batch traffic fills the rest of a batch. At least every ninth batch is made around the
first input of the batch traffic, so that it never starves. An input with k batch inputs before it runs within
9 (k + 1) batches. The bound is in batches and not in seconds: in a long overload all batch traffic would become urgent
by its age, and priorities would have no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic

from services.batching.fair_queue import EntryT, FairQueue
from services.batching.select_batch import select_batch

WINDOW: Final = 512
"""The number of inputs from which one batch is selected. It bounds the cost of the selection."""
PATIENCE: Final = 8
"""The maximum number of consecutive batches made around interactive inputs while batch traffic waits."""


class BatchQueue(Generic[EntryT]):
    """The queued inputs. Plain state."""

    def __init__(self) -> None:
        self._interactive: FairQueue[EntryT] = FairQueue()
        self._batch: FairQueue[EntryT] = FairQueue()
        self._passed = 0

    def add(self, tenant: str, entries: Sequence[EntryT], *, yields: bool) -> None:
        """Appends inputs of one tenant. `yields` marks batch traffic."""
        (self._batch if yields else self._interactive).add(tenant, entries)

    def withdraw(self, tenant: str, count: int, *, yields: bool) -> None:
        """Reports that `count` queued inputs of a tenant have no caller any more."""
        (self._batch if yields else self._interactive).withdraw(tenant, count)

    def next(self, budget: int) -> list[EntryT]:
        """Removes and returns the next batch: at most `budget` tokens with padding; empty if nothing is queued."""
        first, second = self._interactive, self._batch
        if self._passed >= PATIENCE or not first:
            first, second = second, first
        ahead = first.draw(WINDOW)
        behind = second.draw(WINDOW - len(ahead)) if second else []
        window = [*ahead, *behind]
        taken = select_batch([entry.length for entry in window], budget)
        batch = [window[index] for index in taken]
        self._passed = self._passed + 1 if first is self._interactive and second else 0
        first.settle(ahead, {index for index in taken if index < len(ahead)})
        second.settle(behind, {index - len(ahead) for index in taken if index >= len(ahead)})
        return batch

    def clear(self) -> list[EntryT]:
        """Removes and returns all queued inputs."""
        return [*self._interactive.clear(), *self._batch.clear()]
