"""Decoders of kinds that differ most from Llama's say through our engine what they say alone; others are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from meshgate.runtime.config import ConfigError
from services.generation.config import EngineConfig, ModelConfig
from services.generation.engine import engine_factory
from services.generation.model import self_check
from services.generation.model.causal_model import CausalModel, usable_context
from tests.support.fixtures.engine_parity import alone, heard, hold, prompts
from tests.tinymodels.kinds import VOCABULARY, WINDOW, build
from tests.tinymodels.llama import build_tiny_llama

LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.7],
    "long_factor": [2.0, 3.0, 5.0, 9.0],
    "original_max_position_embeddings": 40,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
BOUNDED: dict[str, tuple[str, dict[str, Any], int]] = {
    "phi3 longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 40}, 40),
    "llama longrope": ("llama", {"rope_parameters": {**LONGROPE, "rope_theta": 10000.0}}, 40),
    "llama dynamic": ("llama", {"rope_parameters": DYNAMIC}, 64),
    "llama yarn": ("llama", {"rope_parameters": YARN}, 64),
    "gpt_neo local": ("gpt_neo", {}, WINDOW),
    "mistral window": ("mistral", {}, WINDOW),
    "mistral none": ("mistral", {"sliding_window": None}, 64),
    "roberta positions": ("roberta", {}, 63),
}


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "gemma2", "mpt", "opt", "xlm-roberta", "qwen3_moe", "deepseek_v3"])
def test_it_says_what_transformers_says(kind: str) -> None:
    hold(build(kind))


@pytest.mark.parametrize("name", BOUNDED)
def test_up_to_its_bound_a_model_says_what_transformers_says(name: str) -> None:
    kind, more, bound = BOUNDED[name]
    module = build(kind, **more)
    assert usable_context(module.config, 4096) == bound
    hold(module, 4096)


def test_beyond_its_original_length_a_prompt_in_pieces_would_be_another() -> None:
    """Why there is a bound."""
    module = build("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=40)
    model = CausalModel(module, 3, 64)
    asked = prompts(VOCABULARY, 64)
    assert heard(model, asked) != [alone(module, prompt, min(6, 64 - len(prompt))) for prompt in asked]


def test_the_bound_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        usable_context(build("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=40).config, 4096)
    [record] = [each for each in caplog.records if "bounded" in each.message]
    assert (record.__dict__["tokens"], "rotary" in record.__dict__["by"]) == (40, True)


def blocks(module: Any) -> None:
    """Attention that looks at the last place of the whole batch, as one with its own mask would."""
    forward = module.forward

    def other(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("past_key_values") is not None:
            kwargs["attention_mask"] = torch.zeros_like(kwargs["attention_mask"])
        return forward(*args, **kwargs)

    module.forward = other


def shifts(module: Any) -> None:
    """Positions that are counted by the module itself."""
    forward = module.forward
    module.forward = lambda *args, **kwargs: forward(*args, **{**kwargs, "position_ids": None})


@pytest.mark.parametrize("break_it", [blocks, shifts])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_that_gets_other_scores_in_a_batch_is_not_served(
    break_it: Callable[[Any], None], dtype: torch.dtype
) -> None:
    module = build("gpt2").to(dtype)
    self_check.check(CausalModel(module, 2, 64), "model", Path("tiny"))
    break_it(module)
    with pytest.raises(ConfigError, match=r"^model\.source: tiny: a gpt2 model of this configuration"):
        self_check.check(CausalModel(module, 2, 64), "model", Path("tiny"))


def refusal(folder: Path, **change: Any) -> str:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | change))
    settings = {"source": str(folder), "name": "m", "dtype": "float32", "device": "cpu"}
    with pytest.raises(ConfigError) as error:
        engine_factory.load(
            ModelConfig.model_validate(settings), EngineConfig.model_validate({"max_batch": 2}), "models.2"
        )
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("models.2.source: ")
    return str(error.value)


@pytest.mark.parametrize("kind", ["bloom", "xlnet", "canine", "mamba", "bart", "nonsense", "rwkv", "xlm", "reformer"])
def test_a_kind_that_is_not_served_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    assert kind in refusal(build_tiny_llama(tmp_path / "x"), model_type=kind)


@pytest.mark.parametrize(
    "change",
    [
        {"max_position_embeddings": None},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"hidden_act": "nonsense"},
        {"rope_parameters": {"rope_type": "nonsense"}},
        {"layer_types": ["chunked_attention"] * 2},
        {"hidden_size": "large"},
        {"vocab_size": -1},
        {"head_dim": 7},
    ],
    ids=str,
)
def test_a_configuration_that_can_not_be_run_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    refusal(build_tiny_llama(tmp_path / "x"), **change)


def test_falcon_with_alibi_is_refused_and_without_is_served(tmp_path: Path) -> None:
    module = build("falcon", alibi=True)
    build_tiny_llama(tmp_path)
    module.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).alibi
    assert "falcon models with alibi" in refusal(tmp_path)
    hold(build("falcon"))
