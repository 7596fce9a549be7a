"""From an adapter's files to what is multiplied, for one model: every shape and number is checked first."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from services.generation.adapters import lora_config
from services.generation.adapters.adapter_errors import unusable
from services.generation.adapters.adapter_store import AdapterFiles
from services.generation.adapters.lora_config import LoraConfig
from services.generation.adapters.lora_layers import LayerSize

_PREFIX: Final = "base_model.model."
_A: Final = ".lora_A.weight"
_B: Final = ".lora_B.weight"
_FORMATS: Final = (torch.float32, torch.bfloat16, torch.float16)
_CONTENTS_BYTES: Final = 4_194_304
"""The most of a table of contents: thousands of layers fit."""
_serials = itertools.count()


class LoraPair(NamedTuple):
    """What one layer's output y = Wx changes by: B(Ax)."""

    a: Tensor
    """[rank, inputs]"""
    b: Tensor
    """[outputs, rank], multiplied by the scale already."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LoRA:
    """A loaded adapter; freed with the last that holds it."""

    serial: int
    """Of this loading: no other, of this name or another, has had it."""
    pairs: Mapping[str, LoraPair]
    size: int
    """Bytes on the device."""


class LoraLoader:
    """What adapters have to fit: one model's layers, its number format and its device. Thread-safe."""

    def __init__(
        self,
        layers: Mapping[str, LayerSize],
        dtype: torch.dtype,
        device: torch.device,
        rank: int,
        bases: Iterable[str] = (),
    ) -> None:
        """`rank` is the highest. `bases` is what an adapter may be made for by its own account; empty, anything."""
        self._layers = layers
        self._dtype = dtype
        self._device = device
        self._rank = rank
        self._bases = frozenset(bases)

    def fit(self, files: AdapterFiles) -> LoRA:
        """Raises InvalidArgument (ADAPTER_UNUSABLE), which says what does not fit."""
        how = lora_config.read(files.config)
        if self._bases and how.base_model_name_or_path not in self._bases:
            raise unusable("it was made for another model")
        tensors = _tensors(files.weights)
        pairs = {layer: self._pair(layer, tensors, how) for layer in _layers(tensors)}
        if not pairs or len(tensors) != 2 * len(pairs):
            raise unusable("there is something in it besides pairs of lora_A and lora_B")
        size = sum(part.nbytes for pair in pairs.values() for part in pair)
        return LoRA(next(_serials), pairs, size)

    def _pair(self, layer: str, tensors: Mapping[str, Tensor], how: LoraConfig) -> LoraPair:
        size = self._layers.get(layer)
        if size is None:
            raise unusable("this model has no layer that it changes")
        a, b = (tensors.get(_PREFIX + layer + end) for end in (_A, _B))
        rank = how.rank(layer)
        if not 1 <= rank <= self._rank:
            raise unusable(f"its rank has to be from 1 to {self._rank}")
        if a is None or b is None or a.shape != (rank, size.inputs) or b.shape != (size.outputs, rank):
            raise unusable(f"{layer}: of another shape, or not whole: made for another model?")
        return LoraPair(self._placed(a), self._placed(b.float() * how.scale(layer)))

    def _placed(self, numbers: Tensor) -> Tensor:
        placed = numbers.to(self._dtype)
        if not placed.isfinite().all():
            raise unusable("not all of its numbers are finite")
        return placed.to(self._device).contiguous()


def _tensors(content: bytes) -> dict[str, Tensor]:
    if int.from_bytes(content[:8], "little") > _CONTENTS_BYTES:
        raise unusable("its numbers are damaged")
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, json.JSONDecodeError):
        raise unusable("its numbers are damaged") from None
    if any(each.dtype not in _FORMATS for each in tensors.values()):
        raise unusable("its numbers have to be float32, bfloat16 or float16")
    return tensors


def _layers(tensors: Iterable[str]) -> list[str]:
    """The layers that are named by an A."""
    return [name.removeprefix(_PREFIX).removesuffix(_A) for name in tensors if name.endswith(_A)]
