"""The prefill policy: which of the prompts in prefill gets the next chunk.

The rules are those of fair_queue.py: interactive before batch, though not for ever, and tenants in turn by tokens. A
tenant's counter includes the whole prompt once that is admitted. Here only the prefilled part counts, so that a long
prompt, once admitted, comes neither before everything else nor after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.generation.engine.interface import Job, Priority
from services.generation.scheduler.fair_queue import INTERACTIVE_STREAK, VirtualTokenCounter
from services.generation.scheduler.row_table import Prefill


class PrefillPolicy:
    """Chooses among prompts. Plain state, for one thread."""

    def __init__(self, queue: VirtualTokenCounter) -> None:
        self._queue = queue
        self._streak = 0
        """Interactive chunks prefilled in a row while a batch prompt was in prefill."""

    def next(self, prefills: Sequence[Prefill]) -> Prefill | None:
        """The prompt that gets the next chunk, of those that are not prefilled to their end."""
        unread = [each for each in prefills if each.logits is None]
        if not unread:
            return None
        batch = [each for each in unread if each.request.job.priority is Priority.BATCH]
        interactive = [each for each in unread if each.request.job.priority is Priority.INTERACTIVE]
        late = bool(batch) and self._streak >= INTERACTIVE_STREAK
        self._streak = self._streak + 1 if batch and interactive and not late else 0
        return min(batch if late or not interactive else interactive, key=lambda each: self._order(each, unread))

    def _order(self, prefill: Prefill, unread: Sequence[Prefill]) -> tuple[int, int]:
        tenant = prefill.request.job.tenant
        owed = sum(each.unread for each in unread if each.request.job.tenant == tenant)
        return self._queue.served(tenant) - owed, prefill.request.serial


def may_prefill(job: Job, prefills: Sequence[Prefill]) -> bool:
    """Whether a job's prompt may begin: a tenant's prompts of one priority are prefilled one after another."""
    return not any(
        each.request.job.tenant == job.tenant and each.request.job.priority is job.priority for each in prefills
    )
