"""The keys and values of every sequence in the batch, in rows that stay where they are.

Row r of a layer holds sequence r's positions from the left: position p at place p. Running sequences fill rows 0 to
n-1, so that a step works on views and copies nothing; whoever leaves is replaced by the last row. One more row,
`spare`, keeps a prompt out of the way (see batch.py). All rows of a layer are as long as the longest sequence
needed so far, doubled when one needs more: memory follows use, and the copying is over after a few long prompts.

A layer grows when it is written to, and only its own tensors say how long it is. So where memory ends half way through
the layers, those that have grown and those that have not are as good as before, and no more than one layer is there
twice.
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
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._first = 0
        self._count = 0
        self._start = 0
        self._length = 0
        self._shown = 0
        self._places: Tensor | None = None
        self._lines: dict[tuple[int, int], Tensor] = {}
        self._apart: dict[int, list[Tensor]] = {}

    @property
    def position_bytes(self) -> int:
        """What one position of a row takes, in the layers that have written."""
        return sum(layer.shape[1] * layer.shape[3] * layer.element_size() for layer in (*self._keys, *self._values))

    def read_into(self, row: int, start: int, count: int, step: int = 1) -> int:
        """The next forward pass writes `count` positions of one row, from `start`. Returns how many it sees: those, and
        up to a multiple of `step` others, which are to be masked.
        """
        self._first, self._count, self._start, self._length = row, 1, start, start + count
        self._shown = min(-(-self._length // step) * step, self._capacity(self._length))
        self._places = None
        return self._shown

    def advance(self, positions: Tensor) -> None:
        """The next forward pass writes position positions[r], int64, of each row r."""
        self._first, self._count, self._length = 0, len(positions), int(positions.max()) + 1
        self._shown = self._length
        self._places = positions
        self._lines.clear()

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes a layer's new keys and values and returns views of all that are seen, [count, heads, length, size]."""
        if layer_idx == len(self._keys):
            capacity = self._capacity(self._length)
            keys, values = self._allocate(key_states, capacity), self._allocate(value_states, capacity)
            self._keys.append(keys)
            self._values.append(values)
        self._reach(layer_idx, self._length)
        return self._write(self._keys[layer_idx], key_states), self._write(self._values[layer_idx], value_states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions that a forward pass sees, its own included."""
        return self._shown

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` positions of a row over another."""
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :length].copy_(tensor[source, :, :length])

    def wipe(self, row: int) -> None:
        """Zeroes a row. Masked places weigh nothing, but nothing times a NaN is a NaN."""
        for tensor in (*self._keys, *self._values):
            tensor[row].zero_()

    def store(self, slot: int, row: int, start: int, count: int) -> None:
        """Copies `count` positions of a row, from `start`, to a place apart from the rows, for `recall`."""
        taken = [tensor[row, :, start : start + count] for tensor in (*self._keys, *self._values)]
        self._apart[slot] = [each.clone(memory_format=torch.contiguous_format) for each in taken]

    def restore(self, slot: int, row: int, start: int) -> None:
        """Copies what was kept to a row, from `start`."""
        kept = self._apart[slot]
        end = start + kept[0].shape[1]
        for layer in range(len(self._keys)):
            self._reach(layer, end)
        for tensor, each in zip((*self._keys, *self._values), kept, strict=True):
            tensor[row, :, start:end].copy_(each)

    def forget(self) -> None:
        """Drops all that was kept."""
        self._apart.clear()

    def shrink(self, length: int) -> None:
        """Gives back the memory of all positions after the first `length`, as far as doubling lets it. Raises what the
        device says where it has no memory to move even one layer.
        """
        capacity = self._capacity(length)
        for layers in (self._keys, self._values):
            for index, layer in enumerate(layers):
                if capacity < layer.shape[2]:
                    smaller = self._allocate(layer, capacity)
                    layers[index] = smaller.copy_(layer[:, :, :capacity])

    def _write(self, layer: Tensor, states: Tensor) -> Tensor:
        if self._places is None:
            layer[self._first, :, self._start : self._length].copy_(states[0])
        else:
            size = states.shape[3]
            lines = self._lines_of(self._places, layer.shape[1], layer.shape[2])
            layer.view(-1, size).index_copy_(0, lines, states.reshape(-1, size))
        return layer[self._first : self._first + self._count, :, : self._shown]

    def _lines_of(self, places: Tensor, heads: int, capacity: int) -> Tensor:
        """Where each row's and head's next position lies when all of a layer's positions are one long list."""
        lines = self._lines.get((heads, capacity))
        if lines is None:
            rows_and_heads = torch.arange(self._count * heads, device=places.device)
            lines = rows_and_heads * capacity + places.repeat_interleave(heads)
            self._lines[heads, capacity] = lines
        return lines

    def _allocate(self, like: Tensor, capacity: int) -> Tensor:
        # Zeros and not whatever is there: a NaN in a masked place would still be a NaN in the sum.
        return like.new_zeros(self.rows + 1, like.shape[1], capacity, like.shape[3])

    def _reach(self, index: int, length: int) -> None:
        """Makes a layer's rows long enough for so many positions."""
        for layers in (self._keys, self._values):
            layer = layers[index]
            if layer.shape[2] < length:
                larger = self._allocate(layer, self._capacity(length))
                larger[:, :, : layer.shape[2]].copy_(layer)
                layers[index] = larger

    def _capacity(self, length: int) -> int:
        """Places a row for so many positions: by doubling, so that little is copied often."""
        capacity = _FIRST_CAPACITY
        while capacity < length:
            capacity *= 2
        return min(capacity, self._context)
