"""The line before the model: two priorities, each fair between tenants, and the next batch.

Interactive inputs go first; batch traffic fills what room they leave in a batch. So that it is never starved, every
ninth batch at the latest is made around the batch input whose turn it is: an input with k of its own kind before it
runs within 9 (k + 1) batches. The bound is in batches and not in seconds, because batch traffic that became urgent by
its age would, under a long overload, become urgent all of it, and priorities would mean nothing when they matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic

from services.batching.fair_queue import EntryT, FairQueue
from services.batching.select_batch import select_batch

WINDOW: Final = 512
"""How many of the inputs whose turn is next are looked at for one batch: bounds its cost."""
PATIENCE: Final = 8
"""So many batches in a row may be made around interactive inputs while batch traffic waits."""


class BatchQueue(Generic[EntryT]):
    """What waits for the model. Plain state."""

    def __init__(self) -> None:
        self._interactive: FairQueue[EntryT] = FairQueue()
        self._batch: FairQueue[EntryT] = FairQueue()
        self._passed = 0

    def add(self, tenant: str, entries: Sequence[EntryT], *, yields: bool) -> None:
        """Appends inputs of one tenant; `yields` says that they are batch traffic."""
        (self._batch if yields else self._interactive).add(tenant, entries)

    def withdraw(self, tenant: str, count: int, *, yields: bool) -> None:
        """Says that so many inputs, which were added and not taken, are gone."""
        (self._batch if yields else self._interactive).withdraw(tenant, count)

    def next(self, budget: int) -> list[EntryT]:
        """Removes and returns the next batch, of at most `budget` tokens with padding; empty if nothing waits."""
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
        """Removes and returns all that waits."""
        return [*self._interactive.clear(), *self._batch.clear()]
