"""A sentence-embedding model: an encoder, its own pooling and prompts, and its tokeniser, from one directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from services import device
from services.embedding.card import Card, read_card
from services.embedding.config import ModelConfig
from services.encoder import Encoder, Pooling, first_lengths, load_encoder
from services.models import source
from services.tokens import Tokeniser, Tokens
from services.weights import opening
from services.weights.opening import Where

Vector = NDArray[np.float32]


class Runnable(Protocol):
    """What the model's thread runs."""

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """One vector, float32 [dimensions], for each item; not normalised."""


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it is queued."""

    model: Runnable
    tokens: Tokens
    pooling: Pooling


class EmbeddingModel:
    """Ready to run."""

    def __init__(self, encoder: Encoder, tokeniser: Tokeniser, card: Card) -> None:
        self.encoder = encoder
        self.tokeniser = tokeniser
        self.card = card

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """One vector, float32 [dimensions], for each item; not normalised."""
        vectors = self.encoder.pooled([item.tokens for item in batch], [item.pooling for item in batch])
        return list(vectors.numpy())

    def warm_up(self, *, compiled: bool = False) -> None:
        """Runs what a caller would otherwise pay for, because it is the first."""
        for lengths in first_lengths(self.tokeniser.max_tokens, compiled=compiled):
            self.run([sound(self, length) for length in lengths])


def sound(model: Runnable, length: int = 4) -> Item:
    """An input, `length` tokens long, that nothing is wrong with."""
    return Item(model, Tokens([1] * length, [0] * length), Pooling.MEAN)


def run(batch: Sequence[Item]) -> list[Vector]:
    """Runs a batch whose inputs may be for different models; results are index-aligned."""
    if all(item.model is batch[0].model for item in batch):
        return batch[0].model.run(batch)
    results: dict[int, Vector] = {}
    for model in {id(item.model): item.model for item in batch}.values():
        places = [place for place, item in enumerate(batch) if item.model is model]
        results.update(zip(places, model.run([batch[place] for place in places]), strict=True))
    return [results[place] for place in range(len(batch))]


def load(config: ModelConfig, key: str = "model") -> EmbeddingModel:
    """Loads what the configuration names in its section `key`. Raises ConfigError."""
    directory = source.locate(config, key)
    placed = device.device_of(config.device)
    where = Where(placed, device.dtype_of(config.dtype, placed))
    opening.check(config, key, placed)
    with source.reading(key, directory):
        tokeniser: Any = AutoTokenizer.from_pretrained(directory)
        facts = AutoConfig.from_pretrained(directory)
        card = read_card(directory, key)
        positions = int(getattr(facts, "max_position_embeddings", config.max_input_tokens))
        bounds = (config.max_input_tokens, positions, card.max_tokens or config.max_input_tokens)
        reader = Tokeniser(tokeniser.backend_tokenizer, min(bounds))
        encoder = load_encoder(config, key, directory, where, reader, tokeniser.pad_token_id or 0)
    return EmbeddingModel(encoder, reader, card)
