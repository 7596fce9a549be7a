"""Continuous batching, as a state that is moved on step by step; no threads here (see continuous.py).

A step lets those leave who have to, advances every running sequence by one token, and admits who waits. A prompt is
given a row and read into it, a piece a step so that running sequences never wait long. Its first candidate runs in the
row that it was read into, the others in copies of it, as rows become free: a prompt is read once however many
candidates it has. Which row holds what, see batch.py.

A sequence that has tokens and whose deadline would pass during the step leaves before it, by how long the last steps
took: afterwards its answer would be too late. See stepping/durations.py.

Whose turn it is, see line.py. The last free rows, `guest_rows` of them, are for interactive calls of tenants that have
no other. So neither a tenant that fills the batch with long answers nor batch traffic makes another's single call wait
until an answer is over.

The parts are in stepping/: who is let in and whose prompt is read (admitting.py), candidates in their rows
(candidates.py), what prompts begin with alike (beginnings.py), who makes room where memory ends (shedding.py), and what
listeners are told (telling.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Row

from meshgate.errors import MeshError
from services.batching import Fault
from services.batching.latency_model import Pace
from services.common.error_kinds import judge
from services.generation.engine.interface import Delta, Finish
from services.generation.model import sampling
from services.generation.model.prefix_cache import Prefixes
from services.generation.model.sampling import Choice
from services.generation.scheduler.admitting import Admitting
from services.generation.scheduler.candidates import Candidates
from services.generation.scheduler.fair_queue import Line
from services.generation.scheduler.oom_recovery import Shedding
from services.generation.scheduler.output_dispatch import Telling
from services.generation.scheduler.prefix_reuse import Beginnings
from services.generation.scheduler.row_limit import Headroom
from services.generation.scheduler.row_table import Batch
from services.generation.scheduler.sequence import Group, Sequence
from services.generation.scheduler.state import Adapting, RowModel, State, Unadapted
from services.generation.scheduler.step_durations import Durations
from services.generation.text.detokenise import TokenBytes


class Stepper:
    """The queue and the running batch."""

    def __init__(
        self,
        model: RowModel,
        tokens: TokenBytes,
        end_tokens: frozenset[int],
        prefill_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        guest_rows: int = 0,
        reading: Pace | None = None,
        headroom: Headroom | None = None,
        adapting: Adapting | None = None,
        prefixes: Prefixes | None = None,
    ) -> None:
        """`reading` learns how long prompts take, `headroom` how many rows there is memory for. Without `adapting`,
        jobs have no adapter, and without `prefixes` every prompt is read whole.
        """
        self._clock = clock
        self._model = model
        self._adapting = adapting or Unadapted()
        self._line = Line()
        self._batch = Batch(model)
        self._headroom = headroom or Headroom(model.rows)
        self._telling = Telling(self._headroom)
        state = State(model, self._adapting, self._line, self._batch, self._headroom, self._telling)
        beginnings = Beginnings(prefixes, self._line)
        self._shedding = Shedding(state, beginnings)
        self._durations = Durations()
        self._candidates = Candidates(state, tokens, end_tokens, guest_rows)
        pace = reading or Pace(prefill_tokens)
        self._admitting = Admitting(state, self._candidates, beginnings, self._shedding, prefill_tokens, pace, clock)

    def add(self, group: Group) -> None:
        """Queues a job."""
        self._line.add(group)

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._line or self._batch)

    def step(self) -> None:
        """One round. Raises what the model raised when the fault can't be one sequence's."""
        began = self._clock()
        prefill = bool(self._line or self._batch.readings)
        self._leave(began, began + self._durations.longest(prefill=prefill))
        self._telling.deliver()  # who leaves must not wait for the step that it leaves before
        self._advance(began)
        self._admit(prefill=prefill)
        self._telling.deliver()
        if self.idle():
            self._adapting.rows(())  # so that the last adapter can be freed

    def fail(self, error: MeshError) -> None:
        """Ends everything with `error`."""
        groups = dict.fromkeys([*self._batch.groups(), *self._line])
        self._line.clear()
        self._batch.clear()
        self._telling.fail_all(groups, error)

    def _leave(self, now: float, after: float) -> None:
        running = self._batch.running
        for row in reversed(range(len(running))):
            sequence = running[row]
            reason = sequence.group.verdict(now, after)
            if reason is not None:
                self._telling.note(sequence.group, sequence.finish(reason))
                self._batch.leave(row)
        self._batch.readings = [each for each in self._batch.readings if not self._end_waiting(each.group, now, after)]
        if any(group.verdict(now, after) for group in self._line):
            self._line.remove(lambda group: self._end_waiting(group, now, after))

    def _end_waiting(self, group: Group, now: float, after: float) -> bool:
        reason = group.verdict(now, after)
        if reason is None:
            return False
        for candidate in group.waiting():
            self._telling.note(group, Delta(candidate, finish=Finish(reason)))
        group.placed = group.job.candidates
        return True

    def _admit(self, *, prefill: bool) -> None:
        began = self._clock()
        self._admitting.admit()
        if prefill:
            self._durations.prefilled(self._clock() - began)

    def _advance(self, began: float) -> None:
        running = self._batch.running
        if not running:
            return
        try:
            choices = self._decode(running)
        except Exception as error:
            if judge(error) is not Fault.MEMORY:
                raise
            self._shedding.shed(error)
            return
        self._headroom.went_well()
        for sequence in running:
            sequence.length += 1
        ended = [row for row, choice in enumerate(choices) if self._candidates.take(running[row], choice)]
        for row in reversed(ended):
            if isinstance(choices[row], Exception):
                self._model.wipe(row)
            self._batch.leave(row)
        self._durations.decoded(self._clock() - began)

    def _decode(self, running: Row[Sequence]) -> Row[Choice | Exception]:
        self._adapting.rows([each.group.job.adapter for each in running])
        logits = self._model.decode([each.last for each in running], [each.length for each in running])
        return sampling.choose(logits, [each.sampler for each in running])
