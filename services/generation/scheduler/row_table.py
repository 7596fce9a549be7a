"""Which row of the cache holds what: rows that run, rows that prompts are read into, and the spare one.

Running sequences fill rows 0 to n-1, whatever joins and leaves. Prompts are read into free rows, so that several may be
in reading at once: one that is read at one go in the row where it will run, a longer one at the other end, out of the
way. The spare row keeps the prompt of a call whose candidates wait for rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.generation.engine.interface import Job
from services.generation.scheduler.sequence import Group, Sequence

if TYPE_CHECKING:
    from torch import Tensor


class Rows(Protocol):
    """What it needs of a model."""

    rows: int
    spare: int

    def copy(self, source: int, target: int, length: int) -> None: ...


@dataclass(slots=True, eq=False)
class Reading:
    """A prompt in its row; `logits` are there once all of it has been read."""

    group: Group
    row: int
    position: int = 0
    logits: Tensor | None = None

    @property
    def unread(self) -> int:
        """Tokens yet to be read."""
        return len(self.group.job.prompt) - self.position


class Batch:
    """Plain state, and the copying that keeps it in order."""

    def __init__(self, model: Rows) -> None:
        self.running: list[Sequence] = []
        """By row."""
        self.readings: list[Reading] = []
        self._kept: Group | None = None
        """Whose prompt is in the spare row."""
        self._model = model

    def __bool__(self) -> bool:
        return bool(self.running or self.readings)

    @property
    def taken(self) -> int:
        """Rows in use."""
        return len(self.running) + len(self.readings)

    def groups(self) -> Iterator[Group]:
        """Whose rows they are; a call with several rows comes several times."""
        yield from (sequence.group for sequence in self.running)
        yield from (reading.group for reading in self.readings)

    def jobs(self) -> Iterator[Job]:
        """Likewise."""
        return (group.job for group in self.groups())

    def longest(self) -> int:
        """Positions of the longest row whose content is needed."""
        kept = [len(self._kept.job.prompt)] if self._kept is not None and self._kept.open else []
        lengths = [*(sequence.length for sequence in self.running), *(reading.position for reading in self.readings)]
        return max([*kept, *lengths], default=0)

    def clear(self) -> None:
        """Forgets all."""
        self.running, self.readings, self._kept = [], [], None

    # Prompts

    def open(self, group: Group, *, short: bool) -> Reading:
        """A free row for a prompt, which there must be; `short` where it will be read at one go."""
        free = self._free()
        reading = Reading(group, free[0] if short else free[-1])
        self.readings.append(reading)
        return reading

    def source(self, group: Group) -> int | None:
        """A row that begins with a call's prompt."""
        if self._kept is group:
            return self._model.spare
        return next((row for row, sequence in enumerate(self.running) if sequence.group is group), None)

    def keep(self, group: Group, row: int) -> None:
        """Copies a prompt out of the way, where nobody else's is there."""
        if self._kept is group or (self._kept is not None and self._kept.open):
            return
        self._model.copy(row, self._model.spare, len(group.job.prompt))
        self._kept = group

    # Sequences

    def settle(self, reading: Reading) -> None:
        """Brings a prompt to the row that will run next."""
        row = len(self.running)
        if reading.row == row:
            return
        other = self._at(row)
        if other is not None and not self._step_aside(other):
            self._swap(reading, other)
            return
        self._move(reading, row)

    def join(self, sequence: Sequence, source: int) -> None:
        """Runs a sequence whose prompt is in the row `source`; there must be a free row."""
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
        used = {reading.row for reading in self.readings}
        return [row for row in range(len(self.running), self._model.rows) if row not in used]

    def _at(self, row: int) -> Reading | None:
        return next((reading for reading in self.readings if reading.row == row), None)

    def _step_aside(self, reading: Reading) -> bool:
        """Moves a prompt to another free row; False where there is none."""
        free = self._free()
        if free:
            self._move(reading, free[-1])
        return bool(free)

    def _swap(self, one: Reading, other: Reading) -> None:
        """Takes the spare row for it: whoever's prompt is kept there is read again."""
        self._kept = None
        place = one.row
        self._copy(other, self._model.spare)
        self._move(one, other.row)
        if other.position:
            self._model.copy(self._model.spare, place, other.position)
        other.row = place

    def _move(self, reading: Reading, row: int) -> None:
        self._copy(reading, row)
        reading.row = row

    def _copy(self, reading: Reading, row: int) -> None:
        if reading.position:
            self._model.copy(reading.row, row, reading.position)
