"""Continuous batching, as a state that is moved on step by step; no threads here (see continuous.py).

A step lets those leave who have to, advances every running sequence by one token, and admits who waits. The prompt at
the head of the queue is read into the cache's spare row, a piece a step so that running sequences never wait long; its
candidates then get rows as rows become free, each a copy of what was read. So a prompt is read once however many
candidates it has, and a later cache of shared prefixes is more spare rows.

Whose turn it is, see line.py. The last free rows, `guest_rows` of them, are for interactive calls of tenants that have
no other. So neither a tenant that fills the batch with long answers nor batch traffic makes another's single call wait
until an answer is over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshgate.errors import Internal, MeshError
from services.batching.pace import Pace
from services.generation import sampling
from services.generation.detokenise import TokenBytes
from services.generation.engine import Adapter, Delta, Finish, Priority
from services.generation.line import Line
from services.generation.sampling import Choice
from services.generation.sequence import Group, Sequence

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_FAILED_READS = 3
"""So many prompts in a row that can't be read mean that it is the model that is broken."""


class RowModel(Protocol):
    """What a step needs of a model: see CausalModel."""

    rows: int
    context: int
    spare: int
    whole: bool
    """Whether it reads prompts in one piece only."""

    def read(self, tokens: Row[int], start: int) -> Tensor: ...

    def decode(self, tokens: Row[int], lengths: Row[int]) -> Tensor: ...

    def copy(self, source: int, target: int, length: int) -> None: ...

    def wipe(self, row: int) -> None: ...


class Adapting(Protocol):
    """What knows how adapters change the model: see services.generation.adapters."""

    def rows(self, adapters: Row[Adapter | None]) -> None: ...


@dataclass(slots=True)
class _Reading:
    """The prompt in the spare row; `logits` are there once all of it has been read."""

    group: Group
    position: int = 0
    logits: Tensor | None = None


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
        adapting: Adapting | None = None,
    ) -> None:
        """`reading` learns how long prompts take. Without `adapting`, jobs have no adapter."""
        self._adapting = adapting
        self._guest_rows = min(guest_rows, model.rows - 1)
        self._pace = reading or Pace(prefill_tokens)
        self._model = model
        self._tokens = tokens
        self._end_tokens = end_tokens
        self._prefill_tokens = prefill_tokens
        self._clock = clock
        self._line = Line()
        self._reading: _Reading | None = None
        self._running: list[Sequence] = []
        self._made: dict[Group, list[Delta]] = {}
        self._failed_reads = 0

    def add(self, group: Group) -> None:
        """Queues a job."""
        self._line.add(group)

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._line or self._running or self._reading)

    def step(self) -> None:
        """One round. Raises what the model raised when the fault can't be one sequence's."""
        self._leave()
        self._advance()
        self._admit()
        self._deliver()
        if self.idle():
            self._adapt(())  # so that the last adapter can be freed

    def fail(self, error: MeshError) -> None:
        """Ends everything with `error`."""
        groups = {sequence.group: None for sequence in self._running} | dict.fromkeys(self._line)
        groups |= {self._reading.group: None} if self._reading else {}
        self._line.clear()
        self._running, self._reading, self._made = [], None, {}
        for group in groups:
            self._tell_failed(group, error)

    # Leaving

    def _leave(self) -> None:
        now = self._clock()
        for row in reversed(range(len(self._running))):
            sequence = self._running[row]
            reason = sequence.group.verdict(now)
            if reason is not None:
                self._note(sequence.group, sequence.finish(reason))
                self._free(row)
        if self._reading is not None and self._end_waiting(self._reading.group, now):
            self._reading = None
        if any(group.verdict(now) for group in self._line):
            self._line.remove(lambda group: self._end_waiting(group, now))

    def _end_waiting(self, group: Group, now: float) -> bool:
        reason = group.verdict(now)
        if reason is None:
            return False
        for candidate in group.waiting():
            self._note(group, Delta(candidate, finish=Finish(reason)))
        group.placed = group.job.candidates
        return True

    def _free(self, row: int) -> None:
        last = self._running.pop()
        if row < len(self._running):
            self._model.copy(len(self._running), row, last.length)
            self._running[row] = last

    # Advancing

    def _advance(self) -> None:
        if not self._running:
            return
        self._adapt([each.group for each in self._running])
        logits = self._model.decode([each.last for each in self._running], [each.length for each in self._running])
        for sequence in self._running:
            sequence.length += 1
        choices = sampling.choose(logits, [sequence.sampler for sequence in self._running])
        ended = [row for row, choice in enumerate(choices) if self._take(self._running[row], choice)]
        for row in reversed(ended):
            if isinstance(choices[row], Exception):
                self._model.wipe(row)
            self._free(row)

    def _adapt(self, groups: Row[Group]) -> None:
        """The next pass has a row for each of these."""
        if self._adapting is not None:
            self._adapting.rows([group.job.adapter for group in groups])

    def _take(self, sequence: Sequence, choice: Choice | Exception) -> bool:
        """Gives a sequence its token. True when it has ended, be it by an error of its own."""
        try:
            if isinstance(choice, Exception):
                raise choice
            delta = sequence.take(choice)
        except Exception as error:
            self._fail_group(sequence.group, error)
            return True
        self._line.charge(sequence.group.job.tenant, len(delta.token_ids))
        self._note(sequence.group, delta)
        return delta.finish is not None

    # Admitting

    def _admit(self) -> None:
        allowance = self._prefill_tokens
        while len(self._running) < self._model.rows:
            if self._reading is None or not self._fits(self._reading.group):
                following = self._line.next(self._fits)
                if following is None:
                    return
                self._put_back()
                self._reading = self._begin(following)
            if self._reading.logits is None:
                if allowance <= 0:
                    return
                allowance -= self._read(self._reading, allowance)
            elif not self._place(self._reading.group, self._reading.logits):
                self._reading = None

    def _put_back(self) -> None:
        """Lets another pass the candidates for which there is no row yet."""
        if self._reading is not None:
            self._reading.group.logits = self._reading.logits
            self._line.put_back(self._reading.group)

    def _begin(self, group: Group) -> _Reading:
        """Its prompt is not read again where one of its candidates has it in a row still."""
        row = next((row for row, sequence in enumerate(self._running) if sequence.group is group), None)
        if row is None or group.logits is None:
            return _Reading(group)
        length = len(group.job.prompt)
        self._model.copy(row, self._model.spare, length)
        return _Reading(group, length, group.logits)

    def _fits(self, group: Group) -> bool:
        """Whether there is a row that the next candidate of `group` may have."""
        free = self._model.rows - len(self._running)
        if free > self._guest_rows:
            return True
        job = group.job
        running = (sequence.group.job for sequence in self._running)
        guest = job.priority is Priority.INTERACTIVE and not any(
            each.tenant == job.tenant and each.priority is Priority.INTERACTIVE for each in running
        )
        return free > 0 and guest

    def _read(self, reading: _Reading, allowance: int) -> int:
        prompt, start = reading.group.job.prompt, reading.position
        piece = prompt[start:] if self._model.whole else prompt[start : start + allowance]
        self._adapt([reading.group])
        began = self._clock()
        try:
            logits = self._model.read(piece, start)
        except Exception as error:
            self._reading = None
            self._fail_group(reading.group, error)
            self._failed_reads += 1
            if self._failed_reads >= _FAILED_READS:
                raise
            return len(piece)
        self._failed_reads = 0
        self._pace.learn(len(piece), self._clock() - began)
        reading.position += len(piece)
        reading.logits = logits if reading.position == len(prompt) else None
        return len(piece)

    def _place(self, group: Group, logits: Tensor) -> bool:
        """Gives the next candidate its first token and a row. False once there is no further candidate."""
        if group.failed or not group.waiting():
            return False
        candidate, group.placed = group.placed, group.placed + 1
        try:
            sequence = Sequence(group, candidate, self._tokens, self._end_tokens, self._model.context)
        except Exception as error:
            self._fail_group(group, error)
            return False
        (choice,) = sampling.choose(logits[None], [sequence.sampler])
        if isinstance(choice, Exception):
            self._model.wipe(self._model.spare)
        if not self._take(sequence, choice):
            self._model.copy(self._model.spare, len(self._running), sequence.length)
            self._running.append(sequence)
        return True

    # Telling

    def _note(self, group: Group, delta: Delta) -> None:
        if not group.failed:
            self._made.setdefault(group, []).append(delta)

    def _fail_group(self, group: Group, error: Exception) -> None:
        if not isinstance(error, MeshError):
            _log.error("a sequence failed", exc_info=error)
            error = Internal("generation failed")
        self._made.pop(group, None)
        if not group.failed:
            self._tell_failed(group, error)

    def _tell_failed(self, group: Group, error: MeshError) -> None:
        group.failed = True
        try:
            group.listener.failed(error)
        except Exception:
            _log.exception("a listener failed")

    def _deliver(self) -> None:
        made, self._made = self._made, {}
        for group, deltas in made.items():
            try:
                group.listener.deltas(deltas)
            except Exception:  # whoever asked is gone
                _log.exception("a listener failed")
                group.cancel()
