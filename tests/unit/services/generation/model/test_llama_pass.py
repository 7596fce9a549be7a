"""The pass of our own says what transformers' modules say, and steps aside where they are wanted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from services.generation.model import llama_pass
from services.generation.model.causal_model import CausalModel
from services.weights import attention, fused_linear, int8, packing

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
KINDS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama3": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=SCALED, tie_word_embeddings=True)),
    "every head its own keys": lambda: LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": 4})),
    "biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, head_dim=32)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
}


def built(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(9)
    module: Any = KINDS[kind]().to(dtype).eval()
    with torch.inference_mode():
        for parameter in module.parameters():  # norms and biases too, which are otherwise one and zero
            parameter.normal_(parameter.mean(), 0.2)
    return module


def prepared(module: Any) -> CausalModel:
    fused_linear.join_siblings(module)
    packing.pack(module)
    assert llama_pass.fits(module)
    return CausalModel(module, rows=4, context=100)


def said(model: CausalModel) -> list[Tensor]:
    """Prompts in pieces into three rows, then steps of all of them, each at its own length."""
    ids = torch.randint(3, 100, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    made = [
        model.prefill(0, ids[:9], 0),
        model.prefill(0, ids[9:40], 9),
        model.prefill(1, ids[:1], 0),
        model.prefill(2, ids[:12], 0),
    ]
    return [*made, *(model.decode(ids[50 + n : 53 + n], [40 + n, 1 + n, 12 + n]) for n in range(4))]


def compared(plain: CausalModel, ours: CausalModel, close: float) -> None:
    for wanted, made in zip(said(plain), said(ours), strict=True):
        assert made.shape == wanted.shape
        assert made.dtype is torch.float32
        assert (made - wanted).abs().max() < close * wanted.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_modules(kind: str) -> None:
    plain = CausalModel(built(kind), rows=4, context=100)
    compared(plain, prepared(built(kind)), 1e-5)


@pytest.mark.parametrize("few", [attention._FEW, 0], ids=["torch's attention", "products"])
def test_in_bfloat16_but_for_rounding(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_FEW", few)
    plain = CausalModel(built("llama", torch.bfloat16), rows=4, context=100)
    compared(plain, prepared(built("llama", torch.bfloat16)), 0.1)


def test_in_eight_bits() -> None:
    plain, ours = built("qwen2"), built("qwen2")
    assert int8.quantise(plain.base_model) == int8.quantise(ours.base_model) == 3 * 7
    compared(CausalModel(plain, rows=4, context=100), prepared(ours), 1e-4)


def test_a_layer_that_is_changed_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    module = built("llama")
    model = prepared(module)
    before = model.prefill(0, [5, 6, 7], 0)
    layer = module.model.layers[1].self_attn.v_proj
    own = layer.forward
    with monkeypatch.context() as changed:
        changed.setitem(layer.__dict__, "forward", lambda states: own(states) + 1)
        other = model.prefill(0, [5, 6, 7], 0)
    assert (other - before).abs().max() > 0.01
    assert torch.equal(model.prefill(0, [5, 6, 7], 0), before)


def test_other_kinds_are_left_to_their_modules() -> None:
    gpt2: Any = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2))
    other: Any = LlamaForCausalLM(LlamaConfig(**SIZES, hidden_act="gelu"))
    fused_linear.join_siblings(other)
    assert not llama_pass.fits(gpt2)
    assert not llama_pass.fits(other)
    assert not llama_pass.fits(built("llama")), "its layers are not joined"
