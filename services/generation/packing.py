"""Weights of linear layers in the order in which oneDNN multiplies them, put so once and not at every step.

A step of few rows reads every weight and does little with each, so on a CPU the time to bring them into order is a
fifth of the step. torch's own compiler does the same when it freezes a model; it reaches oneDNN by the operators used
here, which are torch's but not documented. Where they are missing nothing is packed.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

_ROWS: Final = 16
"""For how many rows the order is best; it is right for any."""


class Packed(nn.Module):
    """Stands in for a linear layer, whose weight it takes: in main memory it is there once."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features = layer.in_features
        self.out_features = layer.out_features
        self.bias = layer.bias
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS)

    def forward(self, states: Tensor) -> Tensor:
        """states x weight + bias."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._weight, self.bias, "none", [], "")
        return made


def pack(module: Any) -> Any:
    """Packs the linear layers of a model in bfloat16 on a CPU; what is none of these stays as it is. Returns it."""
    if module.device.type != "cpu" or not _possible():
        return module
    for name, layer in list(module.named_modules()):
        if type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and layer.weight.dtype is torch.bfloat16:
            module.set_submodule(name, Packed(layer))
    return module


def _possible() -> bool:
    operators = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
    if not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
