"""Every kind of decoder, tiny and random, says through our engine what it says through transformers alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

from services.generation.model import CausalModel
from tests.kinds.conftest import Tally

PROMPT = [5, 9, 33, 4, 21, 60, 7]


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def gpt_neox() -> Any:
    sizes: Any = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=64, **sizes))


@pytest.mark.parametrize("build", [gpt2, gpt_neox])
def test_a_prompt_in_pieces_gives_what_it_gives_whole(build: Any, tally: Tally) -> None:
    torch.manual_seed(1)
    module = build().eval()
    model = CausalModel(module, 2, 32)
    model.read(0, PROMPT[:3], 0)
    logits = model.read(0, PROMPT[3:], 3)
    with torch.inference_mode():
        torch.testing.assert_close(logits, module(torch.tensor([PROMPT])).logits[0, -1])
    tally("generation", module.config.model_type, True)
