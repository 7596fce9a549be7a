"""Layers that multiply the same input, as one: a larger product in one call instead of three small ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.weights.int8 import Int8Linear
from services.weights.packing import PackedLinear, packable


class Product(nn.Module):
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


def product(linear: Any) -> PackedLinear | Product:
    """The fastest form of a layer."""
    return PackedLinear(linear) if packable(linear) else Product(linear)


def joinable(linears: Sequence[Any]) -> bool:
    """Whether they are of one form, and all of them or none have a bias."""
    kinds = {(type(each), each.in_features, each.bias is None) for each in linears}
    return len(kinds) == 1 and type(linears[0]) in (nn.Linear, Int8Linear)


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
