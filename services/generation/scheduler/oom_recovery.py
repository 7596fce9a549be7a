"""Where the device has no memory for a step, one call ends and makes room for the others: see headroom.py."""

from __future__ import annotations

import logging
from typing import Final

from services.generation.engine.interface import Priority
from services.generation.scheduler.prefix_reuse import Beginnings
from services.generation.scheduler.sequence import Group
from services.generation.scheduler.state import State

_log = logging.getLogger(__name__)

_FAILED_READS: Final = 3
"""So many prompts in a row that can't be read, nor a token that any sound model can, mean that the model is broken."""
_SOUND: Final = (0,)
"""A prompt that only a broken model can't read."""


class Shedding:
    """Makes room, and asks whether the model is at fault."""

    def __init__(self, state: State, beginnings: Beginnings) -> None:
        self._state = state
        self._beginnings = beginnings
        self._failed_reads = 0

    def shed(self, error: Exception) -> None:
        """No memory for a step of so many rows: one call ends. The others' rows are as they were before the step.
        Raises `error` where none is left and the model can't read anything either.
        """
        batch, headroom = self._state.batch, self._state.headroom
        running = batch.running
        group = max((sequence.group for sequence in running), key=self._expendable)
        self._state.telling.fail(group, error)
        for row in reversed(range(len(running))):
            if running[row].group is group:
                batch.leave(row)
        headroom.ran_out(len(running))
        self.give_back()
        _log.warning("no memory for a step: a call was ended", extra={"rows": headroom.rows})
        if not batch:
            self.doubt(0, error)

    def give_back(self) -> None:
        """Gives the device back what no call needs."""
        self._beginnings.give_up()
        self._state.model.shrink(self._state.batch.longest())

    def doubt(self, row: int, error: Exception) -> None:
        """Tries the model on a free row where there was trouble. Raises `error` where it has failed too often."""
        self._state.adapting.rows([None])
        try:
            self._state.model.read(row, _SOUND, 0)
        except Exception:
            self._failed_reads += 1
            if self._failed_reads >= _FAILED_READS:
                raise error from None

    def went_well(self) -> None:
        """A prompt was read: the model is sound."""
        self._failed_reads = 0

    def _expendable(self, group: Group) -> tuple[bool, int, int]:
        """Batch calls first, then those of the tenant that has the most rows, then the newest."""
        rows = sum(sequence.group.job.tenant == group.job.tenant for sequence in self._state.batch.running)
        return group.job.priority is Priority.BATCH, rows, group.serial
