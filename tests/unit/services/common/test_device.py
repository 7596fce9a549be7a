"""The choice of a model's dtype."""

from __future__ import annotations

import torch

from services.common.device import dtype_of


def test_bfloat16_is_picked_where_it_is_native_or_asked_for() -> None:
    cpu = torch.device("cpu")
    assert dtype_of("bfloat16", cpu) is torch.bfloat16
    assert dtype_of("float32", cpu) is torch.float32
    assert dtype_of("auto", cpu) in (torch.bfloat16, torch.float32)
