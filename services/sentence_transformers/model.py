"""A sentence-embedding model: encoder, pooling, layers after it, prompts and tokeniser, from one directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig

from services.encoders.encoder import Encoder, first_batches, load_encoder
from services.encoders.pooling import Pooling
from services.encoders.positions import longest
from services.models.config import SourceConfig
from services.sentence_transformers import dense
from services.sentence_transformers.card import Card, read_card
from services.sentence_transformers.dense import Step
from services.text import load_tokeniser
from services.text.tokens import Tokeniser, Tokens
from services.weights.load_weights import Where


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
            self.run(batch, [self.card.pooling] * len(batch))


def load(settings: SourceConfig, key: str, directory: Path, where: Where, most: int) -> EmbeddingModel:
    """Loads what is in a directory, for the section `key`; it takes at most `most` tokens. Raises ConfigError, and what
    reading files raises.
    """
    facts, card = AutoConfig.from_pretrained(directory), read_card(directory, key)
    tokeniser, backend = load_tokeniser.load(directory, key)
    limit = card.max_tokens or tokeniser.model_max_length
    backend = load_tokeniser.lower_cased(backend) if card.lower_case else backend
    reader = Tokeniser(backend, min(most, longest(facts, limit)))
    encoder = load_encoder(settings, key, directory, where, tokeniser, reader)
    after = dense.steps(directory, card.after, encoder.dimensions, key, pickles=settings.allow_pickle)
    return EmbeddingModel(encoder, reader, card, after)
