"""Weights of linear layers in eight bits: symmetric, a scale for each output. What flows between layers stays as it is.

Half the memory of bfloat16, and with one row or two, where reading the weights is what takes the time, less time too.
With more of them multiplying takes the time, and torch has no better way than to make bfloat16 of the weights in each
call.

Embeddings, norms and what stands on top of the backbone (a head that makes tokens or labels) keep their format: they
are either looked up and not multiplied, or what they get wrong nothing evens out.
"""

from __future__ import annotations

from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

_STEPS: Final = 127
_FEW_ROWS: Final = 8
"""Up to here torch's kernel for int8 is the faster way: measured on x86 with AVX-512, where 8 were even. It is so in
bfloat16 only; given float32 it was ten times slower than multiplying.
"""


class Int8Linear(nn.Module):
    """A linear layer whose weights are int8 [out, in], with a scale for each output."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """A layer in eight bits."""
        return cls(*rounded(linear.weight.detach()), linear.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        rows = inputs.reshape(-1, self.in_features)
        few = len(rows) <= _FEW_ROWS and rows.dtype is torch.bfloat16
        made = self._few(rows) if few else self._many(rows)
        return made.view(*inputs.shape[:-1], self.out_features)

    def _few(self, rows: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._weight_int8pack_mm(rows.contiguous(), self.weight, self.scale)
        return made if self.bias is None else made.add_(self.bias)

    def _many(self, rows: Tensor) -> Tensor:
        made = functional.linear(rows, self.weight.to(rows.dtype))
        return made.mul_(self.scale) if self.bias is None else torch.addcmul(self.bias, made, self.scale)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 [out, in] and the scales [out], in the weight's own format, that they are to be multiplied by."""
    exact = weight.float()
    scale = (exact.abs().amax(1) / _STEPS).clamp_(min=torch.finfo(torch.float32).tiny).to(weight.dtype)
    steps = (exact / scale.float()[:, None]).round_().clamp_(-_STEPS, _STEPS)
    return steps.to(torch.int8), scale


def quantise(backbone: Any) -> int:
    """Replaces the linear layers of a module on the CPU, one after the other, so that no more than one is there twice.
    Returns how many there were.
    """
    found = 0
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear.of(child))
                found += 1
    return found
