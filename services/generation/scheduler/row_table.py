"""The row table: which row of the KV cache holds what.

Running sequences fill rows 0 to n-1, whichever join and leave. Prompts are prefilled into free rows, so that several
can be in prefill at once. A prompt that takes one chunk goes into the row where it will run; a longer one goes into the
last free row, out of the way. The spare row keeps the prompt of a request whose candidates wait for rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.generation.engine.interface import Job
from services.generation.scheduler.sequence import GenerationRequest, Sequence

if TYPE_CHECKING:
    from torch import Tensor


class RowCopier(Protocol):
    """What the table needs of a model."""

    rows: int
    spare: int

    def copy(self, source: int, target: int, length: int) -> None: ...


@dataclass(slots=True, eq=False)
class Prefill:
    """A prompt in its row; `logits` is set once the whole prompt is prefilled."""

    request: GenerationRequest
    row: int
    position: int = 0
    logits: Tensor | None = None

    @property
    def unread(self) -> int:
        """Prompt tokens still to prefill."""
        return len(self.request.job.prompt) - self.position


class RowTable:
    """Plain state, and the row copies that keep it in order."""

    def __init__(self, model: RowCopier) -> None:
        self.running: list[Sequence] = []
        """Indexed by row."""
        self.prefills: list[Prefill] = []
        self._kept: GenerationRequest | None = None
        """The request whose prompt is in the spare row."""
        self._model = model

    def __bool__(self) -> bool:
        return bool(self.running or self.prefills)

    @property
    def taken(self) -> int:
        """Rows in use."""
        return len(self.running) + len(self.prefills)

    def requests(self) -> Iterator[GenerationRequest]:
        """The request of each used row; a request with several rows appears several times."""
        yield from (sequence.request for sequence in self.running)
        yield from (prefill.request for prefill in self.prefills)

    def jobs(self) -> Iterator[Job]:
        """The job of each used row, likewise."""
        return (request.job for request in self.requests())

    def longest(self) -> int:
        """Positions of the longest row whose content is needed."""
        kept = [len(self._kept.job.prompt)] if self._kept is not None and self._kept.open else []
        lengths = [*(sequence.length for sequence in self.running), *(prefill.position for prefill in self.prefills)]
        return max([*kept, *lengths], default=0)

    def clear(self) -> None:
        """Empties the table."""
        self.running, self.prefills, self._kept = [], [], None

    # Prompts

    def open(self, request: GenerationRequest, *, short: bool) -> Prefill:
        """Opens a free row, which must exist, for a prompt; `short` where one chunk prefills it."""
        free = self._free()
        prefill = Prefill(request, free[0] if short else free[-1])
        self.prefills.append(prefill)
        return prefill

    def source(self, request: GenerationRequest) -> int | None:
        """A row that begins with the request's prompt."""
        if self._kept is request:
            return self._model.spare
        return next((row for row, sequence in enumerate(self.running) if sequence.request is request), None)

    def keep(self, request: GenerationRequest, row: int) -> None:
        """Copies a prompt to the spare row, unless that holds another prompt that is still needed."""
        if self._kept is request or (self._kept is not None and self._kept.open):
            return
        self._model.copy(row, self._model.spare, len(request.job.prompt))
        self._kept = request

    # Sequences

    def settle(self, prefill: Prefill) -> None:
        """Moves a prefilled prompt to the row that will run next."""
        row = len(self.running)
        if prefill.row == row:
            return
        other = self._at(row)
        if other is not None and not self._step_aside(other):
            self._swap(prefill, other)
            return
        self._move(prefill, row)

    def join(self, sequence: Sequence, source: int) -> None:
        """Runs a sequence whose prompt is in row `source`. A free row must exist."""
        row = len(self.running)
        other = self._at(row)
        if other is not None:
            self._step_aside(other)
        if source != row:
            self._model.copy(source, row, sequence.length)
        self.running.append(sequence)

    def leave(self, row: int) -> None:
        """Frees a running row."""
        last = self.running.pop()
        if row < len(self.running):
            self._model.copy(len(self.running), row, last.length)
            self.running[row] = last

    # Rows

    def _free(self) -> list[int]:
        used = {prefill.row for prefill in self.prefills}
        return [row for row in range(len(self.running), self._model.rows) if row not in used]

    def _at(self, row: int) -> Prefill | None:
        return next((prefill for prefill in self.prefills if prefill.row == row), None)

    def _step_aside(self, prefill: Prefill) -> bool:
        """Moves a prompt to another free row. Returns False where there is none."""
        free = self._free()
        if free:
            self._move(prefill, free[-1])
        return bool(free)

    def _swap(self, one: Prefill, other: Prefill) -> None:
        """Swaps two prompts through the spare row. The prompt that was kept there must be prefilled again."""
        self._kept = None
        place = one.row
        self._copy(other, self._model.spare)
        self._move(one, other.row)
        if other.position:
            self._model.copy(self._model.spare, place, other.position)
        other.row = place

    def _move(self, prefill: Prefill, row: int) -> None:
        self._copy(prefill, row)
        prefill.row = row

    def _copy(self, prefill: Prefill, row: int) -> None:
        if prefill.position:
            self._model.copy(prefill.row, row, prefill.position)
