"""From a section of the configuration to an embedding model that is ready to run."""

from __future__ import annotations

from services.common import device
from services.embedding.config import ModelConfig
from services.models import source
from services.models.starting import starting
from services.sentence_transformers import model
from services.sentence_transformers.model import EmbeddingModel
from services.weights import load_weights
from services.weights.load_weights import Where


def load(config: ModelConfig, key: str = "model") -> EmbeddingModel:
    """Loads what the configuration names in its section `key`. Raises ConfigError."""
    directory = source.locate(config, key)
    placed = device.device_of(config.device, key)
    where = Where(placed, device.dtype_of(config.dtype, placed))
    load_weights.check(config, key, placed)
    with starting(key, config.name), source.reading(key, directory):
        return model.load(config, key, directory, where, config.max_input_tokens)
