"""What is generated with: the model that is shipped, or on a GPU models of real shapes whose weights are random."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from bench.services.contenders.generators import Model
from services.generation.config import ModelConfig
from services.generation.model import checkpoint, gguf

# What transformers leaves untyped.
_from_config: Any = AutoModelForCausalLM.from_config
_GenerationConfig: Any = GenerationConfig


class Shape(NamedTuple):
    """Of a Llama."""

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int


SHAPES: Final[Mapping[str, Shape]] = {
    "1B": Shape(2048, 16, 32, 8, 8192),  # Llama 3.2 1B
    "7B": Shape(4096, 32, 32, 8, 14336),  # Mistral 7B
}


def shipped() -> Model:
    """SmolLM2-135M-Instruct, converted where it was not. Raises ConfigError."""
    directory = checkpoint.locate(ModelConfig.model_validate({}), gguf.convert)
    return Model("SmolLM2-135M-Instruct", directory, checkpoint.packaged_gguf())


def random(name: str, home: Path, device: str) -> Model:
    """A model of that shape with the shipped model's tokeniser. It never ends an answer by itself."""
    known = shipped().directory
    directory = home / f"random-{name}"
    config = _config(SHAPES[name], LlamaConfig.from_pretrained(known))
    with torch.device(device):
        module = _from_config(config, dtype=torch.bfloat16)
    module.generation_config = _GenerationConfig()
    module.save_pretrained(directory)
    for file in known.glob("*token*"):
        shutil.copy(file, directory)
    return Model(f"random weights of {name}", directory, None)


def _config(shape: Shape, known: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=known.vocab_size,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=known.max_position_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
