"""Candidates of calls: who may have a row, the first token in it, and each one after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.generation.engine.interface import Priority
from services.generation.model import sampling
from services.generation.model.sampling import Choice
from services.generation.scheduler.sequence import Group, Sequence
from services.generation.scheduler.state import State
from services.generation.text.detokenise import TokenBytes

if TYPE_CHECKING:
    from torch import Tensor


class Candidates:
    """Puts them into rows, and gives them tokens."""

    def __init__(self, state: State, tokens: TokenBytes, end_tokens: frozenset[int], guest_rows: int) -> None:
        """The last `guest_rows` free rows are for interactive calls of tenants that have no other."""
        self._model = state.model
        self._headroom = state.headroom
        self._line = state.line
        self._batch = state.batch
        self._telling = state.telling
        self._tokens = tokens
        self._end_tokens = end_tokens
        self._guest_rows = guest_rows

    def fits(self, group: Group) -> bool:
        """Whether there is a row that the next candidate of `group` may have."""
        rows = self._headroom.rows
        free = rows - self._batch.taken
        if free > min(self._guest_rows, rows - 1):
            return True
        job = group.job
        guest = job.priority is Priority.INTERACTIVE and not any(
            each.tenant == job.tenant and each.priority is Priority.INTERACTIVE for each in self._batch.jobs()
        )
        return free > 0 and guest

    def seat(self, group: Group, source: int) -> None:
        """Runs a candidate, for which there is a row, and those after it as far as they fit. Their prompt is in the
        row `source`; those that wait will find it in the spare one, or in one that runs.
        """
        logits, group.logits = group.logits, None
        if logits is None or not group.open:
            return
        while self._place(group, source, logits) and self.fits(group):
            pass
        if group.open:
            group.logits = logits
            self._batch.keep(group, source)
            self._line.put_back(group)

    def take(self, sequence: Sequence, choice: Choice | Exception) -> bool:
        """Gives a sequence its token. True when it has ended, be it by an error of its own."""
        try:
            if isinstance(choice, Exception):
                raise choice
            delta = sequence.take(choice)
        except Exception as error:
            self._telling.fail(sequence.group, error)
            return True
        self._line.charge(sequence.group.job.tenant, len(delta.token_ids))
        self._telling.note(sequence.group, delta)
        return delta.finish is not None

    def _place(self, group: Group, source: int, logits: Tensor) -> bool:
        """Gives the next candidate its first token and a row. False once there is no further candidate."""
        candidate, group.placed = group.placed, group.placed + 1
        try:
            sequence = Sequence(group, candidate, self._tokens, self._end_tokens, self._model.context)
        except Exception as error:
            self._telling.fail(group, error)
            return False
        (choice,) = sampling.choose(logits[None], [sequence.sampler])
        if isinstance(choice, Exception):
            self._model.wipe(source)
        if not self.take(sequence, choice):
            self._batch.join(sequence, source)
        return group.open
