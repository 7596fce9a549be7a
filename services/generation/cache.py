"""The keys and values of every sequence in the batch, in rows that stay where they are.

Row r of a layer holds sequence r's positions from the left: position p at place p. Running sequences fill rows 0 to
n-1, so that a step works on views and copies nothing; whoever leaves is replaced by the last row. One more row,
`spare`, is where prompts are read before they are given a row. All rows are as long as the longest sequence needed so
far, doubled when one needs more: memory follows use, and the copying is over after a few long prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

_FIRST_CAPACITY = 256


class SlotCache(Cache):
    """Keys and values, [rows + 1, heads, capacity, size] a layer, allocated when a layer first writes."""

    def __init__(self, rows: int, context: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self.spare = rows
        self._context = context
        self._capacity = min(_FIRST_CAPACITY, context)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._first = 0
        self._count = 0
        self._start = 0
        self._length = 0
        self._places: Tensor | None = None
        self._lines: dict[int, Tensor] = {}

    def read_into(self, row: int, start: int, count: int) -> None:
        """The next forward pass writes `count` positions of one row, from `start`."""
        self._first, self._count, self._start, self._length = row, 1, start, start + count
        self._places = None
        self._reserve(self._length)

    def advance(self, positions: Tensor) -> None:
        """The next forward pass writes position positions[r], int64, of each row r."""
        self._first, self._count, self._length = 0, len(positions), int(positions.max()) + 1
        self._places = positions
        self._reserve(self._length)
        self._lines.clear()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes a layer's new keys and values and returns views of all of them, [count, heads, length, size]."""
        if layer_idx == len(self._keys):
            self._keys.append(self._allocate(key_states))
            self._values.append(self._allocate(value_states))
        return self._write(self._keys[layer_idx], key_states), self._write(self._values[layer_idx], value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions that a forward pass sees, its own included."""
        return self._length

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` positions of a row over another."""
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :length].copy_(tensor[source, :, :length])

    def wipe(self, row: int) -> None:
        """Zeroes a row. Masked places weigh nothing, but nothing times a NaN is a NaN."""
        for tensor in (*self._keys, *self._values):
            tensor[row].zero_()

    def _write(self, layer: Tensor, states: Tensor) -> Tensor:
        if self._places is None:
            layer[self._first, :, self._start : self._length].copy_(states[0])
        else:
            size = states.shape[3]
            lines = self._lines_of(self._places, states.shape[1])
            layer.view(-1, size).index_copy_(0, lines, states.reshape(-1, size))
        return layer[self._first : self._first + self._count, :, : self._length]

    def _lines_of(self, places: Tensor, heads: int) -> Tensor:
        """Where each row's and head's next position lies when all of a layer's positions are one long list."""
        if heads not in self._lines:
            rows_and_heads = torch.arange(self._count * heads, device=places.device)
            self._lines[heads] = rows_and_heads * self._capacity + places.repeat_interleave(heads)
        return self._lines[heads]

    def _reserve(self, length: int) -> None:
        if length <= self._capacity:
            return
        while self._capacity < length:
            self._capacity *= 2
        self._capacity = min(self._capacity, self._context)
        for layers in (self._keys, self._values):
            for index, layer in enumerate(layers):
                layers[index] = self._allocate(layer)
                layers[index][:, :, : layer.shape[2]].copy_(layer)

    def _allocate(self, like: Tensor) -> Tensor:
        # Zeros and not whatever is there: a NaN in a masked place would still be a NaN in the sum.
        return like.new_zeros(self.rows + 1, like.shape[1], self._capacity, like.shape[3])
