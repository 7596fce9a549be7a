"""Rows of one pass, each with an adapter of its own or none.

A layer that an adapter changes has another `forward` for as long as a row in the pass wants it, and its own the rest of
the time: where no row has an adapter, the model is the model, and not so much as a hook is passed. A row is multiplied
by its own adapter's numbers and never by another's, so nothing that is in one can reach another's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from services.generation.engine.interface import Adapter

Rows = slice | Tensor | None
"""Which rows of a pass; None is all of them."""


class LayerSize(NamedTuple):
    """Of a layer."""

    inputs: int
    outputs: int


class LoraLayers:
    """The layers of one model. For the thread that owns it, once it is made."""

    def __init__(self, module: Any) -> None:
        self._device: torch.device = module.device
        self._layers = {name: layer for name, layer in module.named_modules() if _size(layer) and _whole_rows(name)}
        self._changed: list[Any] = []
        self._adapters: Sequence[Adapter | None] = ()

    @property
    def sizes(self) -> Mapping[str, LayerSize]:
        """What can be changed: layers by name."""
        return {name: size for name, layer in self._layers.items() if (size := _size(layer))}

    def select(self, adapters: Sequence[Adapter | None]) -> None:
        """From now on passes are of len(adapters) rows, and adapters[r] changes row r."""
        if adapters == self._adapters:
            return
        self._restore()
        if any(adapters):
            self._change(adapters)
        self._adapters = adapters

    def _restore(self) -> None:
        for layer in self._changed:
            del layer.forward  # what its class has is in sight again
        self._changed.clear()

    def _change(self, adapters: Sequence[Adapter | None]) -> None:
        parts: dict[str, list[tuple[Rows, Any]]] = {}
        for adapter in dict.fromkeys(each for each in adapters if each is not None):
            rows = _place([row for row, each in enumerate(adapters) if each is adapter], len(adapters), self._device)
            for name, pair in adapter.pairs.items():
                parts.setdefault(name, []).append((rows, pair))
        for name, each in parts.items():
            layer = self._layers[name]
            layer.forward = _forward(layer.forward, len(adapters), each)
            self._changed.append(layer)


def _forward(own: Callable[[Tensor], Tensor], count: int, parts: Sequence[tuple[Rows, Any]]) -> Any:
    """A layer's own `forward`, and what is added for some of `count` rows."""

    def forward(states: Tensor) -> Tensor:
        made = own(states)
        if len(states) != count:
            raise RuntimeError("a layer was given other rows than the pass has")
        for rows, (a, b) in parts:
            if rows is None:
                made += linear(linear(states, a), b)
            elif isinstance(rows, slice):
                made[rows] += linear(linear(states[rows], a), b)
            else:
                made.index_add_(0, rows, linear(linear(states[rows], a), b))
        return made

    return forward


def _place(rows: Sequence[int], count: int, device: torch.device) -> Rows:
    """Rows that lie side by side need not be copied together."""
    if len(rows) == count:
        return None
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)


def _size(layer: Any) -> LayerSize | None:
    """Of layers that multiply, whatever form their weights have: Linear and those that stand in for it, and GPT-2's
    Conv1D.
    """
    inputs = getattr(layer, "in_features", None) or getattr(layer, "nx", None)
    outputs = getattr(layer, "out_features", None) or getattr(layer, "nf", None)
    return LayerSize(inputs, outputs) if isinstance(inputs, int) and isinstance(outputs, int) else None


def _whole_rows(name: str) -> bool:
    """Experts are given some rows of a pass, and not told which."""
    return "experts" not in name.split(".")
