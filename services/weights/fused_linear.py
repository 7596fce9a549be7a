"""Layers that multiply the same input, as one: a larger product in one call instead of three small ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.weights.int8 import Int8Linear
from services.weights.packing import PackedLinear, packable

_FORMS: Final = (nn.Linear, Int8Linear)


class FusedLinear(nn.Module):
    """A linear layer of any form, with what may follow it. See PackedLinear, which does both in one."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        made: Tensor = self.linear(inputs)
        return made

    def added(self, inputs: Tensor, other: Tensor) -> Tensor:
        """[..., in] to [..., out], with `other` of that shape added."""
        made: Tensor = self.linear(inputs)
        return made.add_(other)

    def gelu(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out], through the exact GELU."""
        return functional.gelu(self.linear(inputs))


def product(linear: Any) -> PackedLinear | FusedLinear:
    """The fastest form of a layer."""
    if isinstance(linear, PackedLinear):
        return linear
    return PackedLinear(linear) if packable(linear) else FusedLinear(linear)


class _Newest(threading.local):
    """A thread's newest product of layers that are one."""

    inputs: Tensor | None = None
    made: list[Tensor | None]
    """What is still to be asked for of it; no longer, for it is as large as the batch."""


class Whole:
    """Layers that are one, for a module that calls them one after the other with the same input. Thread-safe."""

    def __init__(self, linears: Sequence[Any]) -> None:
        self.product = product(join(linears))
        self._newest = _Newest()
        self._sizes = [each.out_features for each in linears]

    def part(self, inputs: Tensor, index: int) -> Tensor:
        """The outputs of one layer for `inputs`, [..., in]."""
        newest = self._newest
        if newest.inputs is not inputs or newest.made[index] is None:
            newest.made, newest.inputs = list(self.product(inputs).split(self._sizes, -1)), inputs
        made, newest.made[index] = newest.made[index], None
        if not any(each is not None for each in newest.made):
            newest.inputs = None
        return cast("Tensor", made)


class Part(nn.Module):
    """One of the layers that are one."""

    weight = None
    """Some modules ask in which format it is, and take None for an answer."""

    def __init__(self, whole: Whole, index: int, linear: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.whole = whole
        self._index = index

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return self.whole.part(inputs, self._index)


_TOGETHER: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""What transformers calls layers that are given the same input."""


def join_siblings(module: Any) -> None:
    """Joins the layers within a module on the CPU that are given the same input, one set of them after the other."""
    for parent in list(module.modules()):
        for names in _TOGETHER:
            linears = [getattr(parent, name, None) for name in names]
            if joinable(linears):
                _part(parent, names, linears)


def _part(parent: Any, names: Sequence[str], linears: list[Any]) -> None:
    whole = Whole(linears)
    for index, (name, linear) in enumerate(zip(names, linears, strict=True)):
        setattr(parent, name, Part(whole, index, linear))


def joinable(linears: Sequence[Any]) -> bool:
    """Whether they are layers of one form on the CPU, and all of them or none have a bias."""
    if not all(type(each) in _FORMS for each in linears):
        return False
    kinds = {
        (type(each), each.in_features, each.bias is None, each.weight.dtype, each.weight.device) for each in linears
    }
    return len(kinds) == 1 and linears[0].weight.device.type == "cpu"


def join(linears: Sequence[Any]) -> nn.Linear | Int8Linear:
    """One layer whose output is that of all of them, [..., out of the first, of the second, ...]."""
    if type(linears[0]) is Int8Linear:
        return Int8Linear(_all("weight", linears), _all("scale", linears), _biases(linears))
    made: Any = nn.Linear(linears[0].in_features, sum(each.out_features for each in linears), bias=False, device="meta")
    made.weight = nn.Parameter(_all("weight", linears), requires_grad=False)
    made.bias = _biases(linears)
    return cast("nn.Linear", made)


def _biases(linears: Sequence[Any]) -> nn.Parameter | None:
    return None if linears[0].bias is None else nn.Parameter(_all("bias", linears), requires_grad=False)


def _all(name: str, linears: Sequence[Any]) -> Tensor:
    return torch.cat([getattr(each, name).detach() for each in linears])
