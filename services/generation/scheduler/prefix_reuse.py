"""What a tenant's prompts begin with alike, as a step uses it: see prefixes.py, which keeps it.

Where there is no memory to use what is kept, it is given up, and nobody's call fails.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from services.batching import Fault
from services.common.error_kinds import judge
from services.generation.model.prefix_cache import Prefixes
from services.generation.scheduler.fair_queue import Line
from services.generation.scheduler.row_table import Reading
from services.generation.scheduler.sequence import Group

_log = logging.getLogger(__name__)


class Beginnings:
    """Puts them into rows and keeps them from rows. Without `prefixes` every prompt is read whole."""

    def __init__(self, prefixes: Prefixes | None, line: Line) -> None:
        self._prefixes = prefixes
        self._line = line

    def recall(self, reading: Reading) -> None:
        """Begins a prompt with what is kept of it, which costs its tenant nothing."""
        if self._prefixes is None:
            return
        job = reading.group.job
        with _sparing(self._prefixes):
            reading.position = self._prefixes.recall(job, reading.row)
            self._line.charge(job.tenant, -reading.position)
            if not reading.group.placed:
                reading.group.cached = reading.position

    def keep(self, group: Group, row: int) -> None:
        """Keeps a prompt that was read into a row."""
        if self._prefixes is not None and not group.failed:
            with _sparing(self._prefixes):
                self._prefixes.keep(group.job, row)

    def give_up(self) -> None:
        """Forgets all, and gives its memory back."""
        if self._prefixes is not None:
            self._prefixes.clear()


@contextmanager
def _sparing(prefixes: Prefixes) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if judge(error) is not Fault.MEMORY:
            raise
        _log.warning("no memory for shared prefixes: they are dropped")
        prefixes.clear()
