"""What is asked of a loaded model beyond its steps, whatever its kind."""

from __future__ import annotations

from typing import Any, Protocol

from services.generation.scheduler.state import RowModel
from services.weights.load_weights import Weights


class LoadedModel(RowModel, Protocol):
    """See CausalModel and Seq2SeqModel."""

    vocabulary_size: int
    dtype: str
    device: str
    weights: Weights
    """In which format they are, and what that cost."""
    end_tokens: frozenset[int]
    source: int | None
    """The most tokens of an input that is read apart from the output (encoder-decoder); None: they share `context`."""
    longest_output: int
    """The most tokens of an output."""

    @property
    def module(self) -> Any:
        """The network itself, whose layers adapters change."""

    def enter_thread(self) -> None: ...

    def warm_up(self) -> None: ...
