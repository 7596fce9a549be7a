"""Classifiers: token ids in, one raw score a label out. The named ones have labels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from meshgate.runtime.config import ConfigError
from services import device, packages
from services.classification import adapter
from services.classification.config import SHIPPED, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.encoder import Encoder, Pooling, load_encoder, padded
from services.tokens import Tokeniser, Tokens

Scores = NDArray[np.float32]


class Runnable(Protocol):
    """What the model's thread runs: a row of numbers for each input."""

    tokeniser: Tokeniser
    dtype: str

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Float32 [labels], or [dimensions] of an encoder, for each input."""


class Classifier:
    """A named classifier: a module whose logits are one a label."""

    def __init__(self, module: Any, labels: Sequence[str], tokeniser: Tokeniser, pad_id: int, *, pairs: bool) -> None:
        """`pairs` says whether the module reads a second text, by token types."""
        self.labels = tuple(labels)
        self.tokeniser = tokeniser
        self.pairs = pairs
        parameter = next(module.parameters())
        self.dtype = str(parameter.dtype).removeprefix("torch.")
        self._module = module
        self._device = parameter.device
        self._pad_id = pad_id

    @torch.inference_mode()
    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Logits, float32 [labels], for each input."""
        output = self._module(**padded(batch, self._pad_id, self._device, typed=self.pairs))
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return list(logits.float().cpu().numpy())


class ZeroShot:
    """An encoder whose vectors, of norm 1, are compared: a text with each label."""

    def __init__(self, encoder: Encoder, tokeniser: Tokeniser, scale: float) -> None:
        self.tokeniser = tokeniser
        self.dtype = encoder.dtype
        self.scale = scale
        self._encoder = encoder

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Vectors, float32 [dimensions] of norm 1, for each input."""
        vectors = self._encoder.pooled(batch, [Pooling.MEAN] * len(batch))
        return list(torch.nn.functional.normalize(vectors).numpy())


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it is queued."""

    model: Runnable
    tokens: Tokens


def run(batch: Sequence[Item]) -> list[Scores]:
    """Runs a batch whose inputs may be for different models; results are index-aligned."""
    results: dict[int, Scores] = {}
    for model in {id(item.model): item.model for item in batch}.values():
        places = [place for place, item in enumerate(batch) if item.model is model]
        rows = model.rows([batch[place].tokens for place in places])
        results.update(zip(places, rows, strict=True))
    return [results[place] for place in range(len(batch))]


def load_classifier(config: ClassifierConfig, engine: EngineConfig) -> Classifier:
    """Loads a named classifier. Raises ConfigError."""
    where = device.device_of(engine.device)
    dtype = device.dtype_of(engine.dtype, where)
    try:
        return _shipped(where, dtype) if config.source == SHIPPED else _pretrained(config.source, where, dtype)
    except (OSError, ValueError, adapter.AdapterError) as error:
        raise ConfigError(f"classifiers.source: {config.source}: {error}") from error


def _shipped(where: torch.device, dtype: torch.dtype) -> Classifier:
    base = adapter.installed_base()
    loaded = adapter.load_sentiment(base, adapter.shipped_dir(), dtype, where)
    tokeniser: Any = AutoTokenizer.from_pretrained(base)
    reader = Tokeniser(tokeniser.backend_tokenizer, loaded.max_tokens)
    return Classifier(loaded.model, loaded.labels, reader, tokeniser.pad_token_id, pairs=False)


def _pretrained(source: str, where: torch.device, dtype: torch.dtype) -> Classifier:
    path = packages.locate(source)
    tokeniser: Any = AutoTokenizer.from_pretrained(path)
    config = AutoConfig.from_pretrained(path)
    module: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype, use_safetensors=True)
    labels = [config.id2label[index] for index in range(config.num_labels)]
    reader = Tokeniser(tokeniser.backend_tokenizer, int(config.max_position_embeddings))
    pairs = getattr(config, "type_vocab_size", 0) > 1
    return Classifier(module.to(where).eval(), labels, reader, tokeniser.pad_token_id or 0, pairs=pairs)


def load_zero_shot(config: ZeroShotConfig, engine: EngineConfig) -> ZeroShot:
    """Loads the zero-shot encoder. Raises ConfigError."""
    source = packages.locate(config.source)
    where = device.device_of(engine.device)
    try:
        tokeniser: Any = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"zero_shot.source: {source}: {error}") from error
    encoder = load_encoder(source, where, device.dtype_of(engine.dtype, where), tokeniser.pad_token_id or 0)
    return ZeroShot(encoder, Tokeniser(tokeniser.backend_tokenizer, config.max_input_tokens), config.scale)
