"""bfloat16 weights laid out beforehand as oneDNN multiplies them.

torch hands oneDNN the weights of a linear layer as they lie, and they are laid out anew in every call. With few rows
that takes about as long as multiplying (bench/RESULTS.md). What comes out is the same, but for rounding.

This leans on operators of torch that are not public (Inductor's own, for weights that it has frozen); torch is pinned,
and a test holds them.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from services.weights import int4
from services.weights.int4 import Int4Weight

_EXACT: Final = 8
_FEW: Final = 32
"""As many rows as a step of generation may have: one more or less takes little, reading the weights takes the time."""
_STEP: Final = 16


class PackedLinear(nn.Module):
    """A linear layer of bfloat16 on the CPU."""

    weight = None
    """Some modules ask in which format it is, and take None for an answer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # Not a buffer: an opaque tensor can be neither moved nor saved.
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._short = int4.pack_int4(linear.weight.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        if self._short is not None and inputs.numel() <= int4.FEW_ROWS * self.in_features:
            return self._few(self._short, inputs)
        count = inputs.numel() // self.in_features
        wide = inputs if fitted(count) == count else _filled(inputs.reshape(count, -1))
        made: Tensor = torch.ops.mkldnn._linear_pointwise(wide, self._packed, self.bias, "none", [], "")
        return made if wide is inputs else made[:count].view(*inputs.shape[:-1], self.out_features)

    def added(self, inputs: Tensor, other: Tensor) -> Tensor:
        """[..., in] to [..., out], and `other` of that shape is added before it is rounded."""
        if self._short is not None and inputs.numel() <= int4.FEW_ROWS * self.in_features:
            return self._few(self._short, inputs).add_(other)
        count = inputs.numel() // self.in_features
        if fitted(count) != count:
            return self.forward(inputs).add_(other)
        made: Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, other, self._packed, self.bias, "add")
        return made

    def gelu(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., out], through the exact GELU before it is rounded."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self.bias, "gelu", [], "none")
        return made

    def _few(self, short: Int4Weight, inputs: Tensor) -> Tensor:
        made = short.multiply(inputs.reshape(-1, self.in_features))
        made = made if self.bias is None else made.add_(self.bias)
        return made.view(*inputs.shape[:-1], self.out_features)


def fitted(rows: int) -> int:
    """So many rows or somewhat more: at most an eighth, or fifteen; of 32 or fewer a quarter, and of 8 none.

    oneDNN makes a program for every number of rows that it meets, which takes longer than to multiply a batch of them,
    and keeps a thousand of those, nearly a megabyte each. So not every number is multiplied.
    """
    if rows <= _EXACT:
        return rows
    step = 1 << (rows.bit_length() - 3) if rows <= _FEW else max(_STEP, 1 << (rows.bit_length() - 4))
    return -(-rows // step) * step


def _filled(rows: Tensor) -> Tensor:
    """Rows and as many others, of whatever content, as there have to be."""
    made = rows.new_empty(fitted(len(rows)), rows.shape[1])
    made[: len(rows)] = rows
    return made


def packable(linear: Any) -> bool:
    """Whether it is a layer that can be packed, on a CPU that multiplies bfloat16."""
    if type(linear) is not nn.Linear or linear.weight.dtype is not torch.bfloat16:
        return False
    return linear.weight.device.type == "cpu" and native()


def native() -> bool:
    """Whether this torch has oneDNN and this CPU multiplies bfloat16."""
    onednn: Any = torch.backends.mkldnn  # untyped
    return bool(onednn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(module: Any) -> None:
    """Packs the linear layers of a module that is where it will run, one after the other, so that no more than one is
    there twice. Only a weight that an embedding shares is there twice from then on.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if packable(child):
                setattr(parent, name, PackedLinear(child))
