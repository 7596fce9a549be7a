"""What a step works on, and what it needs of a model."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from services.generation.engine.interface import Adapter
from services.generation.scheduler.fair_queue import Line
from services.generation.scheduler.output_dispatch import Telling
from services.generation.scheduler.row_limit import Headroom
from services.generation.scheduler.row_table import Batch

if TYPE_CHECKING:
    from torch import Tensor


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

    def rows(self, adapters: Row[Adapter | None]) -> None:
        """The next pass has a row for each of these."""


class Unadapted:
    """Of a model that has no adapters."""

    def rows(self, adapters: Row[Adapter | None]) -> None:
        """Nothing to do."""


@dataclass(frozen=True, slots=True)
class State:
    """Shared by the parts of a stepper."""

    model: RowModel
    adapting: Adapting
    line: Line
    """Who waits."""
    batch: Batch
    """Which row holds what."""
    headroom: Headroom
    """How many rows there is memory for."""
    telling: Telling
    """What will be told."""
