"""A sentence-embedding model: encoder, pooling, layers after it, prompts and tokeniser, from one directory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from services import device
from services.embedding import dense
from services.embedding.card import Card, read_card
from services.embedding.config import ModelConfig
from services.embedding.dense import Step
from services.encoder import Encoder, first_lengths, load_encoder
from services.models import source
from services.pooling import Pooling
from services.tokens import Tokeniser, Tokens
from services.weights import opening
from services.weights.opening import Where


class EmbeddingModel:
    """Ready to run."""

    def __init__(self, encoder: Encoder, tokeniser: Tokeniser, card: Card, after: Sequence[Step] = ()) -> None:
        self.encoder = encoder
        self.tokeniser = tokeniser
        self.card = card
        self.dimensions = dense.width(after, encoder.dimensions)
        self._after = after

    @torch.inference_mode()
    def run(self, batch: Sequence[Tokens], pooling: Sequence[Pooling]) -> NDArray[np.float32]:
        """Vectors, float32 [inputs, dimensions], not normalised."""
        vectors = self.encoder.pooled(batch, pooling)
        for step in self._after:
            vectors = step(vectors)
        return vectors.numpy()

    def warm_up(self, *, compiled: bool = False) -> None:
        """Runs what a caller would otherwise pay for, because it is the first."""
        for lengths in first_lengths(self.tokeniser.max_tokens, compiled=compiled):
            batch = [Tokens([1] * length, [0] * length) for length in lengths]
            self.run(batch, [Pooling.MEAN] * len(batch))


def load(config: ModelConfig, key: str = "model") -> EmbeddingModel:
    """Loads what the configuration names in its section `key`. Raises ConfigError."""
    directory = source.locate(config, key)
    placed = device.device_of(config.device, key)
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
        after = dense.steps(directory, card.after, encoder.dimensions, key, pickles=config.allow_pickle)
    return EmbeddingModel(encoder, reader, card, after)
