"""Of the prompts that are in reading, the one that the next piece is read of.

As in line.py: interactive before batch, though not for ever, and between tenants by tokens. A tenant's counter holds
its whole prompt once that is taken; here only what was read of it counts, so that a long prompt, once taken, is neither
read before everything else nor after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.generation.engine.interface import Job, Priority
from services.generation.scheduler.fair_queue import PATIENCE, Line
from services.generation.scheduler.row_table import Reading


class Turns:
    """Chooses among prompts. Plain state, for one thread."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._passed = 0
        """Pieces of interactive prompts that were read while a batch one was in reading."""

    def next(self, readings: Sequence[Reading]) -> Reading | None:
        """Whose turn it is, of those that are not read to their end."""
        unread = [reading for reading in readings if reading.logits is None]
        if not unread:
            return None
        batch = [reading for reading in unread if reading.group.job.priority is Priority.BATCH]
        interactive = [reading for reading in unread if reading.group.job.priority is Priority.INTERACTIVE]
        late = bool(batch) and self._passed >= PATIENCE
        self._passed = self._passed + 1 if batch and interactive and not late else 0
        return min(batch if late or not interactive else interactive, key=lambda each: self._read(each, unread))

    def _read(self, reading: Reading, unread: Sequence[Reading]) -> tuple[int, int]:
        tenant = reading.group.job.tenant
        owed = sum(each.unread for each in unread if each.group.job.tenant == tenant)
        return self._line.served(tenant) - owed, reading.group.serial


def may_read(job: Job, readings: Sequence[Reading]) -> bool:
    """Whether a call's prompt may be begun: a tenant's prompts of one priority are read one after another."""
    return not any(
        reading.group.job.tenant == job.tenant and reading.group.job.priority is job.priority for reading in readings
    )
