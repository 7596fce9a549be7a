"""What the rows of a decoder look at: their own positions, and the inputs that were read for them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor
from transformers import EncoderDecoderCache

from services.generation.model.kv_cache import SlotCache


class _Layer(NamedTuple):
    """What transformers takes a layer's cross-attention from once `is_updated` says that it is there."""

    keys: Tensor
    values: Tensor


class CrossCache(SlotCache):
    """The keys and values of each row's input. They are written once, when it is read."""

    def show(self, rows: int, length: int) -> None:
        """The next forward pass looks at the first `length` positions of the first rows."""
        layers = zip(self._keys, self._values, strict=True)
        shown: list[Any] = [_Layer(keys[:rows, :, :length], values[:rows, :, :length]) for keys, values in layers]
        self.layers = shown


class RowCache(EncoderDecoderCache):
    """Both caches as transformers' decoders take them."""

    def __init__(self, rows: int, source: int, target: int) -> None:
        """For `rows` and a spare one, of at most `source` positions of input and `target` of output."""
        self.own, self.cross = SlotCache(rows, target), CrossCache(rows, source)
        super().__init__(self.own, self.cross)

    def read_into(self, row: int, source: int, target: int) -> None:
        """The next forward pass writes an input of `source` positions, and the first `target` of its output."""
        self.own.read_into(row, 0, target)
        self.cross.read_into(row, 0, source)
        self.is_updated = {}

    def advance(self, positions: Tensor, source: int) -> None:
        """The next forward pass writes position positions[r] of each row r; the longest input has `source`."""
        self.own.advance(positions)
        self.cross.show(len(positions), source)
        self.is_updated = dict.fromkeys(range(len(self.cross.layers)), True)

    def copy(self, source: int, target: int, read: int, made: int) -> None:
        """Copies a row over another: `read` positions of input, `made` of output."""
        self.own.copy(source, target, made)
        self.cross.copy(source, target, read)

    def shrink(self, length: int) -> None:
        """Gives back the memory of what no row of `length` positions, of input or output, needs."""
        self.own.shrink(length)
        self.cross.shrink(length)

    def wipe(self, row: int) -> None:
        """Zeroes a row."""
        self.own.wipe(row)
        self.cross.wipe(row)
