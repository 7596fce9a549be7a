"""Packed weights multiply as the layers did whose place they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from services.generation.packing import Packed, pack
from tests.tinymodels.llama import build_tiny_llama


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("tiny"))


def load(directory: Path, dtype: torch.dtype) -> Any:
    module: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    return module.eval()


def test_a_packed_model_says_what_it_said(directory: Path) -> None:
    ids = torch.arange(3, 40)[None]
    module = load(directory, torch.bfloat16)
    with torch.inference_mode():
        before = module(ids).logits
        packed = pack(module)
        after = packed(ids).logits
        one = packed(ids[:, :1]).logits
    assert torch.allclose(before, after, atol=2e-2)
    assert torch.allclose(one, after[:, :1], atol=2e-2)
    assert not [name for name, layer in packed.named_modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 33])
def test_a_packed_layer_is_right_for_any_number_of_rows(bias: bool, rows: int) -> None:
    layer = nn.Linear(48, 80, bias=bias, dtype=torch.bfloat16)
    states = torch.randn(rows, 1, 48, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.allclose(Packed(layer)(states), layer(states), atol=2e-2)


def test_other_formats_and_other_layers_stay(directory: Path) -> None:
    module = load(directory, torch.float32)
    layers = dict(module.named_modules())
    assert dict(pack(module).named_modules()) == layers
