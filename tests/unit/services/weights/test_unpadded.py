"""Encoders without padding say what transformers' own say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from services.weights import int8, packing
from services.weights.unpadded import UnpaddedEncoder, unpad

SIZES: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "max_position_embeddings": 64,
}
LENGTHS = (7, 1, 30, 12)


@pytest.fixture(autouse=True)
def frozen() -> Any:
    torch.manual_seed(3)
    with torch.inference_mode():
        yield


def built(kind: Any, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    made = kind(config).to(dtype).eval()
    for parameter in made.parameters():  # biases and norms too, which are otherwise zero and one
        parameter.normal_(parameter.mean(), 0.2)
    return made


def batch(*, left: bool = False) -> dict[str, Tensor]:
    mask = torch.tensor([[0] * (30 - length) + [1] * length for length in LENGTHS])
    mask = mask if left else mask.flip(1)
    return {"input_ids": torch.randint(5, 200, mask.shape), "attention_mask": mask}


def unpadded(module: Any) -> Any:
    assert unpad(module)
    packing.pack(module)
    assert isinstance(module.base_model.encoder, UnpaddedEncoder)
    return module


KINDS = [(BertModel, BertConfig(**SIZES)), (RobertaModel, RobertaConfig(**SIZES, pad_token_id=1))]


@pytest.mark.parametrize(("kind", "config"), KINDS, ids=["bert", "roberta"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.15)], ids=["f32", "bf16"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_every_token_has_the_states_it_had(
    kind: Any, config: Any, dtype: torch.dtype, close: float, left: bool
) -> None:
    module, inputs = built(kind, config, dtype), batch(left=left)
    before = module(**inputs).last_hidden_state
    after = unpadded(module)(**inputs).last_hidden_state
    there = inputs["attention_mask"].bool()
    assert after.shape == before.shape
    assert (after[there].float() - before[there].float()).abs().max() < close
    assert after[~there].abs().max() == 0


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_without_padding_and_a_lone_input(rows: int) -> None:
    module = built(BertModel, BertConfig(**SIZES))
    inputs = {"input_ids": torch.randint(5, 200, (rows, 9)), "attention_mask": torch.ones(rows, 9, dtype=torch.int64)}
    before = module(**inputs).last_hidden_state
    torch.testing.assert_close(unpadded(module)(**inputs).last_hidden_state, before, atol=1e-5, rtol=1e-4)


def test_an_inputs_states_do_not_depend_on_its_batch_mates() -> None:
    module, inputs = unpadded(built(BertModel, BertConfig(**SIZES))), batch()
    together = module(**inputs).last_hidden_state
    for row, length in enumerate(LENGTHS):
        alone = module(input_ids=inputs["input_ids"][row : row + 1, :length]).last_hidden_state
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-4)


def test_heads_stand_on_it_too() -> None:
    module, inputs = built(BertForSequenceClassification, BertConfig(**{**SIZES, "num_labels": 5})), batch()
    before = module(**inputs).logits
    torch.testing.assert_close(unpadded(module)(**inputs).logits, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eight_bits_stay_eight_bits(dtype: torch.dtype) -> None:
    module, inputs = built(BertModel, BertConfig(**SIZES), dtype), batch()
    assert int8.quantise(module) == 3 * 6 + 1
    before = module(**inputs).last_hidden_state
    after = unpadded(module)(**inputs).last_hidden_state
    there = inputs["attention_mask"].bool()
    assert (after[there] - before[there]).float().abs().max() < (1e-4 if dtype is torch.float32 else 0.15)
    layer: Any = module.encoder.layers[0]
    assert layer.inputs.linear.weight.dtype is torch.int8


def test_what_is_not_of_its_kind_stays_as_it_is() -> None:
    distil = built(DistilBertModel, DistilBertConfig(vocab_size=50, dim=32, n_heads=2, n_layers=1, hidden_dim=40))
    decoder = built(BertModel, BertConfig(**SIZES, is_decoder=True))
    relu = built(BertModel, BertConfig(**SIZES, hidden_act="relu"))
    uneven = built(BertModel, BertConfig(**SIZES))
    uneven.encoder.layer[0].attention.self.key = nn.Linear(64, 64, bias=False)
    later = built(BertModel, BertConfig(**SIZES))
    later.encoder.layer[2].attention.self.key = nn.Linear(64, 64, bias=False)
    told = built(BertModel, BertConfig(**SIZES, output_hidden_states=True))
    for module in (distil, decoder, relu, uneven, later, told):
        assert not unpad(module)
