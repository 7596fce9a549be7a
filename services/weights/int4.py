"""Weights that have no more than four bits to them, multiplied so where rows are few.

What comes as GGUF of type Q4_1 is, in groups of 32 along an input, sixteen evenly spaced numbers (ggml's block_q4_1):
converted to bfloat16 it takes four times the memory and says nothing more. With few rows reading the weights is what
takes the time, so these are kept in both forms, and the short one is read where that is faster. It is no quantisation:
weights that are not of that kind already stay as they are.

torch's kernel keeps a group's step and offset in bfloat16, so its weights are as near to the file's as those that are
rounded to bfloat16 one by one.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

_GROUP: Final = 32
_STEPS: Final = 15
_ROUNDING: Final = 2.0**-7
"""Of what is largest in a group: a weight, the smallest and the largest were each rounded to eight bits."""
_OUTPUTS: Final = 16
"""torch's kernel wants a multiple of that many."""
_PART: Final = 1024
"""Outputs that are looked at together, so that little memory is taken for it, and most layers are given up on early."""
FEW_ROWS: Final = 4
"""Up to here torch's kernel for four bits is the faster way (bench/RESULTS.md)."""


class Int4Weight(NamedTuple):
    """A layer's weights in four bits, as torch.ops.aten._weight_int4pack_mm_for_cpu takes them."""

    packed: Tensor
    scales: Tensor
    """bfloat16 [groups, out, 2]: the step between two numbers, and the one in the middle."""

    def multiply(self, rows: Tensor) -> Tensor:
        """bfloat16 [rows, in] to [rows, out]."""
        made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, _GROUP, self.scales)
        return made


def pack_int4(weight: Tensor) -> Int4Weight | None:
    """Weights [out, in] in four bits; None where that would not be what they are."""
    outputs, inputs = weight.shape
    if inputs % _GROUP or outputs % _OUTPUTS or not native():
        return None
    steps, scales = torch.empty(outputs, inputs, dtype=torch.int32), []
    for start in range(0, outputs, _PART):
        part = _even(weight[start : start + _PART].float().view(-1, inputs // _GROUP, _GROUP))
        if part is None:
            return None
        steps[start : start + _PART] = part[0].flatten(1)
        scales.append(part[1])
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps, 1)
    return Int4Weight(packed, torch.cat(scales).transpose(0, 1).contiguous())


def native() -> bool:
    """Whether torch's kernel for four bits is a fast one here: with AVX2 it took three times as long as bfloat16."""
    return bool(torch.backends.cpu.get_cpu_capability() == "AVX512")


def _even(groups: Tensor) -> tuple[Tensor, Tensor] | None:
    """The step that each weight [out, groups, 32] is on, and [out, groups, 2] of each group. None: they are on none."""
    lowest, highest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((highest - lowest) / _STEPS).clamp_(min=torch.finfo(torch.float32).tiny)
    steps = ((groups - lowest) / step).round_()
    off = torch.addcmul(lowest, steps, step).sub_(groups).abs_()
    rounding = torch.maximum(lowest.abs(), highest.abs()).mul_(_ROUNDING)
    told = (step > 2 * rounding) | (lowest == highest)  # else every weight is near enough to a step, whatever it is
    if not bool(((off <= rounding) & told).all()):
        return None
    middle = lowest + step * 8
    return steps.to(torch.int32), torch.cat([step, middle], -1).to(torch.bfloat16)
