"""Continuous batching, as a state that is moved on step by step; no threads here (see continuous.py).

A step lets those leave who have to, advances every running sequence by one token, and admits who waits. A prompt is
given a row and read into it, a piece a step so that running sequences never wait long; prompts of several tenants are
in reading at once and share what is read in a step (turns.py), so that a long one makes nobody else's wait. Its first
candidate runs in the row that it was read into, the others in copies of it, as rows become free: a prompt is read once
however many candidates it has. Which row holds what, see batch.py.

Whose turn it is, see line.py. The last free rows, `guest_rows` of them, are for interactive calls of tenants that have
no other. So neither a tenant that fills the batch with long answers nor batch traffic makes another's single call wait
until an answer is over.

What a tenant's prompts begin with alike is read once and kept: see prefixes.py.

Where the device has no memory for a step, one call ends and makes room for the others: see headroom.py. Where it has
none for a prompt, that call alone ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Row
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from meshgate.errors import Internal, MeshError
from services.batching import Fault
from services.batching.pace import Pace
from services.faults import judge
from services.generation import sampling
from services.generation.batch import Batch, Reading
from services.generation.detokenise import TokenBytes
from services.generation.engine import Adapter, Delta, Finish, Priority
from services.generation.headroom import Headroom, no_memory
from services.generation.line import Line
from services.generation.prefixes import Prefixes
from services.generation.sampling import Choice
from services.generation.sequence import Group, Sequence
from services.generation.turns import Turns, may_read

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

_FAILED_READS = 3
"""So many prompts in a row that can't be read, nor a token that any sound model can, mean that the model is broken."""
_SOUND = (0,)
"""A prompt that only a broken model can't read."""


class RowModel(Protocol):
    """What a step needs of a model: see CausalModel."""

    rows: int
    context: int
    spare: int
    whole: bool
    """Whether it reads prompts in one piece only."""

    def read(self, row: int, tokens: Row[int], start: int) -> Tensor: ...

    def decode(self, tokens: Row[int], lengths: Row[int]) -> Tensor: ...

    def copy(self, source: int, target: int, length: int) -> None: ...

    def wipe(self, row: int) -> None: ...

    def shrink(self, length: int) -> None: ...


class Adapting(Protocol):
    """What knows how adapters change the model: see services.generation.adapters."""

    def rows(self, adapters: Row[Adapter | None]) -> None: ...


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
        self._adapting = adapting
        self._prefixes = prefixes
        self._guest_rows = guest_rows
        self._headroom = headroom or Headroom(model.rows)
        self._pace = reading or Pace(prefill_tokens)
        self._model = model
        self._tokens = tokens
        self._end_tokens = end_tokens
        self._prefill_tokens = prefill_tokens
        self._clock = clock
        self._line = Line()
        self._turns = Turns(self._line)
        self._batch = Batch(model)
        self._made: dict[Group, list[Delta]] = {}
        self._failed_reads = 0

    def add(self, group: Group) -> None:
        """Queues a job."""
        self._line.add(group)

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._line or self._batch)

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
        groups = dict.fromkeys([*self._batch.groups(), *self._line])
        self._line.clear()
        self._batch.clear()
        self._made = {}
        for group in groups:
            self._tell_failed(group, error)

    # Leaving

    def _leave(self) -> None:
        now = self._clock()
        running = self._batch.running
        for row in reversed(range(len(running))):
            sequence = running[row]
            reason = sequence.group.verdict(now)
            if reason is not None:
                self._note(sequence.group, sequence.finish(reason))
                self._batch.leave(row)
        self._batch.readings = [each for each in self._batch.readings if not self._end_waiting(each.group, now)]
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

    # Advancing

    def _advance(self) -> None:
        running = self._batch.running
        if not running:
            return
        try:
            choices = self._decode(running)
        except Exception as error:
            if judge(error) is not Fault.MEMORY:
                raise
            self._shed(error)
            return
        self._headroom.went_well()
        for sequence in running:
            sequence.length += 1
        ended = [row for row, choice in enumerate(choices) if self._take(running[row], choice)]
        for row in reversed(ended):
            if isinstance(choices[row], Exception):
                self._model.wipe(row)
            self._batch.leave(row)

    def _decode(self, running: Row[Sequence]) -> Row[Choice | Exception]:
        self._adapt([each.group.job.adapter for each in running])
        logits = self._model.decode([each.last for each in running], [each.length for each in running])
        return sampling.choose(logits, [each.sampler for each in running])

    def _adapt(self, adapters: Row[Adapter | None]) -> None:
        """The next pass has a row for each of these."""
        if self._adapting is not None:
            self._adapting.rows(adapters)

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

    # Memory

    def _shed(self, error: Exception) -> None:
        """No memory for a step of so many rows: one call ends. The others' rows are as they were before the step."""
        running = self._batch.running
        group = max((sequence.group for sequence in running), key=self._expendable)
        self._fail_group(group, error)
        for row in reversed(range(len(running))):
            if running[row].group is group:
                self._batch.leave(row)
        self._headroom.ran_out(len(running))
        self._give_back()
        _log.warning("no memory for a step: a call was ended", extra={"rows": self._headroom.rows})
        if not self._batch:
            self._doubt(0, error)

    def _expendable(self, group: Group) -> tuple[bool, int, int]:
        """Batch calls first, then those of the tenant that has the most rows, then the newest."""
        rows = sum(sequence.group.job.tenant == group.job.tenant for sequence in self._batch.running)
        return group.job.priority is Priority.BATCH, rows, group.serial

    def _give_back(self) -> None:
        if self._prefixes is not None:
            self._prefixes.clear()
        self._model.shrink(self._batch.longest())

    def _doubt(self, row: int, error: Exception) -> None:
        """Tries the model on a free row where there was trouble. Raises `error` where it has failed too often."""
        self._adapt([None])
        try:
            self._model.read(row, _SOUND, 0)
        except Exception:
            self._failed_reads += 1
            if self._failed_reads >= _FAILED_READS:
                raise error from None

    # Admitting

    def _admit(self) -> None:
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
                self._recall(self._batch.open(group, short=short))
            else:
                self._seat(group, source)

    def _recall(self, reading: Reading) -> None:
        """Begins a prompt with what is kept of it, which costs its tenant nothing."""
        if self._prefixes is None:
            return
        job = reading.group.job
        with self._sparing(self._prefixes):
            reading.position = self._prefixes.recall(job, reading.row)
            self._line.charge(job.tenant, -reading.position)
            if not reading.group.placed:
                reading.group.cached = reading.position

    def _keep(self, group: Group, row: int) -> None:
        if self._prefixes is not None and not group.failed:
            with self._sparing(self._prefixes):
                self._prefixes.keep(group.job, row)

    @contextmanager
    def _sparing(self, prefixes: Prefixes) -> Iterator[None]:
        """What is kept is given up where there is no memory to use it, and nobody's call fails."""
        try:
            yield
        except Exception as error:
            if judge(error) is not Fault.MEMORY:
                raise
            _log.warning("no memory for shared prefixes: they are dropped")
            prefixes.clear()

    def _may_begin(self, group: Group) -> bool:
        return self._fits(group) and (group.logits is not None or may_read(group.job, self._batch.readings))

    def _fits(self, group: Group) -> bool:
        """Whether there is a row that the next candidate of `group` may have."""
        free = self._headroom.rows - self._batch.taken
        if free > min(self._guest_rows, self._headroom.rows - 1):
            return True
        job = group.job
        guest = job.priority is Priority.INTERACTIVE and not any(
            each.tenant == job.tenant and each.priority is Priority.INTERACTIVE for each in self._batch.jobs()
        )
        return free > 0 and guest

    def _read(self, reading: Reading, allowance: int) -> int:
        prompt, start = reading.group.job.prompt, reading.position
        piece = prompt[start:] if self._model.whole else prompt[start : start + allowance]
        self._adapt([reading.group.job.adapter])
        began = self._clock()
        try:
            logits = self._model.read(reading.row, piece, start)
        except Exception as error:
            self._misread(reading, error)
            return len(piece)
        self._failed_reads = 0
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
        self._fail_group(reading.group, error)
        if fault is Fault.MEMORY:
            self._give_back()
        if fault is not Fault.MEMORY or not self._batch:
            self._doubt(reading.row, error)

    def _seat_read(self) -> None:
        """Runs those whose prompts have been read, as far as memory is known to suffice for so many rows."""
        for reading in [each for each in self._batch.readings if each.logits is not None]:
            if len(self._batch.running) >= self._headroom.rows:
                return
            self._batch.settle(reading)
            self._batch.readings.remove(reading)
            reading.group.logits = reading.logits
            self._seat(reading.group, reading.row)
            self._keep(reading.group, reading.row)

    def _seat(self, group: Group, source: int) -> None:
        """Runs a candidate, for which there is a row, and those after it as far as they fit. Their prompt is in the
        row `source`; those that wait will find it in the spare one, or in one that runs.
        """
        logits, group.logits = group.logits, None
        if logits is None or not group.open:
            return
        while self._place(group, source, logits) and self._fits(group):
            pass
        if group.open:
            group.logits = logits
            self._batch.keep(group, source)
            self._line.put_back(group)

    def _place(self, group: Group, source: int, logits: Tensor) -> bool:
        """Gives the next candidate its first token and a row. False once there is no further candidate."""
        candidate, group.placed = group.placed, group.placed + 1
        try:
            sequence = Sequence(group, candidate, self._tokens, self._end_tokens, self._model.context)
        except Exception as error:
            self._fail_group(group, error)
            return False
        (choice,) = sampling.choose(logits[None], [sequence.sampler])
        if isinstance(choice, Exception):
            self._model.wipe(source)
        if not self._take(sequence, choice):
            self._batch.join(sequence, source)
        return group.open

    # Telling

    def _note(self, group: Group, delta: Delta) -> None:
        if not group.failed:
            self._made.setdefault(group, []).append(delta)

    def _fail_group(self, group: Group, error: Exception) -> None:
        if not isinstance(error, MeshError):
            _log.error("a sequence failed", exc_info=error)
            error = self._answer(error)
        self._made.pop(group, None)
        if not group.failed:
            self._tell_failed(group, error)

    def _answer(self, error: Exception) -> MeshError:
        if judge(error) is not Fault.MEMORY:
            return Internal("generation failed")
        self._headroom.shed += 1
        error.with_traceback(None)  # its frames keep what memory there was
        return no_memory()

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
