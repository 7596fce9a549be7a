"""Linear layers laid out for the CPU, and in eight bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, T5Config, T5ForSequenceClassification

from services.weights import int8, packing
from services.weights.int8 import Int8Linear
from services.weights.packing import PackedLinear
from tests.tinymodels.llama import build_tiny_llama

pytestmark = pytest.mark.usefixtures("frozen")


@pytest.fixture
def frozen() -> Any:
    torch.manual_seed(7)
    with torch.inference_mode():
        yield


def linear(dtype: torch.dtype, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(96, 40, bias=bias).to(dtype)


def apart(made: Tensor, wanted: Tensor) -> float:
    return float((made.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.skipif(not packing.native(), reason="this CPU multiplies no bfloat16")
@pytest.mark.parametrize("shape", [(1, 96), (3, 7, 96), (200, 96)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_layer_says_what_the_layer_said(shape: tuple[int, ...], bias: bool) -> None:
    layer, inputs = linear(torch.bfloat16, bias=bias), torch.randn(*shape).bfloat16()
    made = PackedLinear(layer)(inputs)
    assert made.shape == (*shape[:-1], 40)
    assert apart(made, layer(inputs)) < 1e-2
    assert (
        apart(made, functional.linear(inputs.float(), layer.weight.float(), None if not bias else layer.bias.float()))
        < 5e-3
    )


def test_only_bfloat16_is_packed() -> None:
    module = nn.Sequential(linear(torch.bfloat16), linear(torch.float32))
    packing.pack(module)
    assert type(module[0]) is (PackedLinear if packing.native() else nn.Linear)
    assert type(module[1]) is nn.Linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_and_many_multiply_the_same_weights(dtype: torch.dtype, bias: bool) -> None:
    layer, inputs = linear(dtype, bias=bias), torch.randn(64, 96).to(dtype)
    eight = Int8Linear.of(layer)
    many = eight(inputs)
    few = torch.cat([eight(inputs[start : start + 4]) for start in range(0, 64, 4)])
    assert apart(few, many) < (5e-3 if dtype is torch.bfloat16 else 1e-5)
    assert 1e-4 < apart(many, layer(inputs)) < 2e-2, "eight bits are an approximation, and a close one"


def test_weights_are_a_quarter_of_float32_and_no_row_moves_by_more_than_half_a_step() -> None:
    layer = linear(torch.float32)
    eight = Int8Linear.of(layer)
    assert eight.weight.nbytes * 4 == layer.weight.nbytes
    back = eight.weight.float() * eight.scale[:, None]
    assert bool(((back - layer.weight).abs() <= eight.scale[:, None] * 0.501).all())


def test_an_output_without_weights_stays_nothing() -> None:
    layer = linear(torch.float32, bias=False)
    layer.weight[3] = 0
    assert Int8Linear.of(layer)(torch.randn(2, 96))[:, 3].tolist() == [0, 0]


def test_the_backbone_is_quantised_and_neither_the_head_nor_the_embedding_that_shares_its_weight(
    tmp_path: Path,
) -> None:
    module: Any = AutoModelForCausalLM.from_pretrained(build_tiny_llama(tmp_path))
    module.eval()
    ids = torch.randint(3, 300, (2, 40))
    before = module(input_ids=ids).logits
    assert int8.quantise(module.base_model) == 2 * 7
    assert type(module.lm_head) is nn.Linear
    assert module.lm_head.weight is module.model.embed_tokens.weight
    assert 1e-4 < apart(module(input_ids=ids).logits, before) < 0.05
    assert int8.quantise(module.base_model) == 0


@pytest.mark.skipif(not packing.native(), reason="this CPU multiplies no bfloat16")
@pytest.mark.parametrize("rows", [33, 47, 48, 100, 300, 1000])
def test_numbers_of_rows_that_are_not_multiplied_have_their_results_all_the_same(rows: int) -> None:
    layer, inputs, other = linear(torch.bfloat16), torch.randn(rows, 96).bfloat16(), torch.randn(rows, 40).bfloat16()
    packed = PackedLinear(layer)
    made = packed(inputs)
    assert made.shape == (rows, 40)
    assert apart(made, layer(inputs)) < 1e-2
    assert apart(packed.added(inputs, other), layer(inputs).float() + other.float()) < 1e-2
    assert apart(packed(inputs.view(1, rows, 96)), layer(inputs)[None]) < 1e-2


def test_so_many_numbers_of_rows_are_multiplied() -> None:
    fits = [packing.fitted(rows) for rows in range(1, 8193)]
    assert all(rows <= fit <= rows + max(15, rows // 8) for rows, fit in enumerate(fits, 1))
    assert len(set(fits)) < 100
    assert sorted(set(fits[:32])) == [*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32], "steps of generation"
    assert all(packing.fitted(fit) == fit for fit in fits)


def test_a_torch_without_onednn_packs_nothing_and_asks_it_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    assert not packing.packable(linear(torch.bfloat16))
    assert not packing.packable(linear(torch.float32))


def test_modules_that_ask_for_a_layers_format_are_told_none() -> None:
    sizes: dict[str, Any] = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    config = T5Config(**{**sizes, "decoder_start_token_id": 0})
    module: Any = T5ForSequenceClassification(config)
    module.bfloat16().eval()
    ids = torch.tensor([[5, 6, 7, 1]])
    before = module(input_ids=ids).logits
    packing.pack(module)
    assert apart(module(input_ids=ids).logits, before) < 0.05
