"""Lets in who waits: rows for prompts, a piece of them a step, and rows for the candidates of those that were read.

Prompts of several tenants are in reading at once and share what is read in a step (turns.py), so that a long one makes
nobody else's wait.
"""

from __future__ import annotations

from collections.abc import Callable

from services.batching import Fault
from services.batching.latency_model import Pace
from services.common.error_kinds import judge
from services.generation.scheduler.candidates import Candidates
from services.generation.scheduler.oom_recovery import Shedding
from services.generation.scheduler.prefill_policy import Turns, may_read
from services.generation.scheduler.prefix_reuse import Beginnings
from services.generation.scheduler.row_table import Reading
from services.generation.scheduler.sequence import Group
from services.generation.scheduler.state import State


class Admitting:
    """Reads `prefill_tokens` a step, and no less than one piece. `pace` learns how long that takes."""

    def __init__(
        self,
        state: State,
        candidates: Candidates,
        beginnings: Beginnings,
        shedding: Shedding,
        prefill_tokens: int,
        pace: Pace,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._model = state.model
        self._line = state.line
        self._batch = state.batch
        self._candidates = candidates
        self._beginnings = beginnings
        self._shedding = shedding
        self._prefill_tokens = prefill_tokens
        self._pace = pace
        self._clock = clock
        self._turns = Turns(state.line)

    def admit(self) -> None:
        """What a step has for those who wait. Raises what the model raised when the fault can't be one prompt's."""
        self._seat_read()
        allowance = self._prefill_tokens
        while allowance > 0:
            self._take_in(allowance)
            reading = self._turns.next(self._batch.readings)
            if reading is None:
                return
            allowance -= self._read(reading, allowance)
            self._seat_read()

    def _take_in(self, allowance: int) -> None:
        """Gives rows to who waits: to candidates whose prompt is in one, and for prompts to be read into."""
        while (group := self._line.next(self._may_begin)) is not None:
            source = None if group.logits is None else self._batch.source(group)
            if source is None:
                short = self._model.whole or len(group.job.prompt) <= allowance
                self._beginnings.recall(self._batch.open(group, short=short))
            else:
                self._candidates.seat(group, source)

    def _may_begin(self, group: Group) -> bool:
        read = group.logits is not None
        return self._candidates.fits(group) and (read or may_read(group.job, self._batch.readings))

    def _read(self, reading: Reading, allowance: int) -> int:
        """Reads a piece; returns its tokens."""
        prompt, start = reading.group.job.prompt, reading.position
        piece = prompt[start:] if self._model.whole else prompt[start : start + allowance]
        self._state.adapting.rows([reading.group.job.adapter])
        began = self._clock()
        try:
            logits = self._model.read(reading.row, piece, start)
        except Exception as error:
            self._misread(reading, error)
            return len(piece)
        self._shedding.went_well()
        self._pace.learn(len(piece), self._clock() - began)
        reading.position += len(piece)
        reading.logits = logits if not reading.unread else None
        return len(piece)

    def _misread(self, reading: Reading, error: Exception) -> None:
        """A prompt could not be read: the call ends, and the model with it where it can't read anything. Where memory
        ended while others run, it is they who have it.
        """
        fault = judge(error)
        if fault is Fault.MODEL:
            raise error
        self._batch.readings.remove(reading)
        self._state.telling.fail(reading.group, error)
        if fault is Fault.MEMORY:
            self._shedding.give_back()
        if fault is not Fault.MEMORY or not self._batch:
            self._shedding.doubt(reading.row, error)

    def _seat_read(self) -> None:
        """Runs those whose prompts have been read, as far as memory is known to suffice for so many rows."""
        for reading in [each for each in self._batch.readings if each.logits is not None]:
            if len(self._batch.running) >= self._state.headroom.rows:
                return
            self._batch.settle(reading)
            self._batch.readings.remove(reading)
            reading.group.logits = reading.logits
            self._candidates.seat(reading.group, reading.row)
            self._beginnings.keep(reading.group, reading.row)
