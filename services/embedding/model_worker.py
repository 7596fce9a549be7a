"""The loader of an embedding model for a host, and the model that the host then runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from services.cpu.thread_tuner import THREADS
from services.embedding import model
from services.embedding.config import ModelConfig
from services.embedding.model_proxy import Input, ModelInfo
from services.encoders.pooling import Pooling
from services.model_process.host import Loaded
from services.models.starting import starting
from services.sentence_transformers.model import EmbeddingModel
from services.text.tokens import Tokens
from services.weights import compiling


def load(config: ModelConfig, key: str, threads: int) -> Loaded:
    """Loads the model of the section `key` and warms it up. Raises ConfigError."""
    torch.set_num_threads(threads or THREADS)
    loaded = model.load(config, key)
    with starting(key, f"{config.name} in its first batches"):
        if config.compile:
            compiling.warm(config.name, key, lambda: loaded.warm_up(compiled=True))
        else:
            loaded.warm_up()
    return Loaded(_facts(loaded), partial(_run, loaded))


def _run(loaded: EmbeddingModel, batch: Sequence[Input]) -> NDArray[np.float32]:
    """Vectors [inputs, dimensions]."""
    return loaded.run([Tokens(each.ids, each.types) for each in batch], [Pooling(each.pooling) for each in batch])


def _facts(loaded: EmbeddingModel) -> ModelInfo:
    return ModelInfo(
        tokeniser=loaded.tokeniser.backend,
        max_tokens=loaded.tokeniser.max_tokens,
        dimensions=loaded.dimensions,
        card=loaded.card,
        dtype=loaded.encoder.dtype,
        device=loaded.encoder.device,
        threads=loaded.encoder.threads,
        quantisation=loaded.encoder.weights.quantisation,
        quality=loaded.encoder.weights.quality,
    )
