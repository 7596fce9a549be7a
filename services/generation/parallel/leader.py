"""Rank 0's model: each step is told to the other ranks before it is run here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from services.generation.parallel import command

if TYPE_CHECKING:
    from torch import Tensor

    from services.generation.engine.loaded_model import LoadedModel


class CommandSender(Protocol):
    """What the leader needs of the ranks."""

    def tell(self, words: Sequence[int]) -> None: ...


class Leader:
    """A model for the step loop, as CausalModel is. For one thread."""

    def __init__(self, model: LoadedModel, line: CommandSender, on_lost: Callable[[], object]) -> None:
        """`on_lost` is called once, on the thread that steps, when the ranks are no longer of one mind."""
        self.rows = model.rows
        self.context = model.context
        self.spare = model.spare
        self.whole = model.whole
        self._model = model
        self._line = line
        self._on_lost = on_lost
        self._lost = False

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Tensor:
        """As CausalModel's, on all ranks. Raises RuntimeError once one is lost."""
        scores: Tensor = self._step("prefill", row, tokens, start)
        return scores

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Likewise."""
        scores: Tensor = self._step("decode", tokens, lengths)
        return scores

    def copy(self, source: int, target: int, length: int) -> None:
        """Likewise."""
        self._step("copy", source, target, length)

    def wipe(self, row: int) -> None:
        """Likewise."""
        self._step("wipe", row)

    def shrink(self, length: int) -> None:
        """Likewise."""
        self._step("shrink", length)

    def store(self, slot: int, row: int, start: int, count: int) -> None:
        """Likewise."""
        self._step("store", slot, row, start, count)

    def restore(self, slot: int, row: int, start: int) -> None:
        """Likewise."""
        self._step("restore", slot, row, start)

    def forget(self) -> None:
        """Likewise."""
        self._step("forget")

    def stop(self) -> None:
        """Lets the other ranks end, once nothing steps any more."""
        if not self._lost:
            with contextlib.suppress(RuntimeError):  # one that is gone already has stopped
                self._tell(command.STOP)

    def _step(self, name: str, *arguments: command.Argument) -> Any:
        if self._lost:
            raise RuntimeError("a rank is lost")
        try:
            self._tell(command.STEPS.index(name), *arguments)
            return getattr(self._model, name)(*arguments)
        except Exception:
            # Whatever it was, others may have gone on where this rank stopped: their sums would no longer be of the
            # same step, and wrong without a word.
            self._lost = True
            self._on_lost()
            raise

    def _tell(self, step: int, *arguments: command.Argument) -> None:
        self._line.tell(command.encode(step, arguments))
