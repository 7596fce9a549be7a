"""A sentence-embedding model: encoder, pooling, layers after it, prompts and tokeniser, from one directory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig

from services import device, tokenising
from services.embedding import dense
from services.embedding.card import Card, read_card
from services.embedding.config import ModelConfig
from services.embedding.dense import Step
from services.encoder import Encoder, first_batches, load_encoder
from services.models import source
from services.models.starting import starting
from services.pooling import Pooling
from services.positions import longest
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
        for batch in first_batches(self.tokeniser, compiled=compiled):
            self.run(batch, [Pooling.MEAN] * len(batch))


def load(config: ModelConfig, key: str = "model") -> EmbeddingModel:
    """Loads what the configuration names in its section `key`. Raises ConfigError."""
    directory = source.locate(config, key)
    placed = device.device_of(config.device, key)
    where = Where(placed, device.dtype_of(config.dtype, placed))
    opening.check(config, key, placed)
    with starting(key, config.name), source.reading(key, directory):
        facts, card = AutoConfig.from_pretrained(directory), read_card(directory, key)
        tokeniser, backend = tokenising.load(directory, key)
        limit = card.max_tokens or tokeniser.model_max_length
        backend = tokenising.lowered(backend) if card.lower_case else backend
        reader = Tokeniser(backend, min(config.max_input_tokens, longest(facts, limit)))
        encoder = load_encoder(config, key, directory, where, tokeniser, reader)
        after = dense.steps(directory, card.after, encoder.dimensions, key, pickles=config.allow_pickle)
    return EmbeddingModel(encoder, reader, card, after)
