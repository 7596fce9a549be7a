"""From the names in a configuration to classifiers that are ready to run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from meshgate.runtime.config import ConfigError
from services import device
from services.classification import adapter
from services.classification.config import SHIPPED, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.locating import LocatingTokeniser
from services.classification.model import Classifier, ZeroShot
from services.classification.ready import Card
from services.classification.tagging import Tagger
from services.encoder import load_encoder, sample
from services.models import source
from services.models.config import SourceConfig
from services.tokens import Tokeniser
from services.weights import opening, quality
from services.weights.opening import Where
from services.weights.quality import Yardstick

_TAGS: Final = "ForTokenClassification"
_SEVERAL: Final = "multi_label_classification"
_OFFSET: Final = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "mpnet"})
"""Kinds of model that count positions from behind the padding token's number, and so have fewer than they say."""

_USUAL: Final = 512
"""The most tokens of a checkpoint that bounds them nowhere."""


def load_classifier(config: ClassifierConfig, engine: EngineConfig, key: str = "classifiers.0") -> Classifier:
    """Loads a named classifier, of the section `key`. Raises ConfigError."""
    where = _where(config, engine, key)
    if config.source != SHIPPED:
        directory = source.locate(config, key)
        with source.reading(key, directory):
            return _pretrained(config, key, directory, where)
    if config.quantisation != "none" and where.device.type != "cpu":
        raise ConfigError(f"{key}.quantisation: {config.source} is quantised on a CPU only")
    try:
        return _shipped(config, key, where)
    except (OSError, ValueError, SafetensorError, adapter.AdapterError) as error:
        raise ConfigError(f"{key}.source: {config.source}: {error}") from error


def _where(config: SourceConfig, engine: EngineConfig, key: str) -> Where:
    placed = device.device_of(engine.device, "engine")
    opening.check(config, key, placed)
    return Where(placed, device.dtype_of(engine.dtype, placed))


def _shipped(config: ClassifierConfig, key: str, where: Where) -> Classifier:
    base, updates = adapter.installed_base(), adapter.shipped_dir()
    loaded = adapter.load_sentiment(base, updates, where.dtype, where.device)
    tokeniser: Any = AutoTokenizer.from_pretrained(base)
    reader = Tokeniser(tokeniser.backend_tokenizer, loaded.max_tokens)
    made = partial(Classifier, card=Card(loaded.labels), tokeniser=reader, pad_id=tokeniser.pad_token_id)
    module, weights = opening.opened(
        config, key, where, lambda: loaded.model, [base, updates], _yardstick(made, reader)
    )
    return made(module, weights=weights)


def _pretrained(config: ClassifierConfig, key: str, path: Path, where: Where) -> Classifier:
    tokeniser: Any = AutoTokenizer.from_pretrained(path)
    facts = AutoConfig.from_pretrained(path)
    tags = any(name.endswith(_TAGS) for name in facts.architectures or ())
    kind: Any = AutoModelForTokenClassification if tags else AutoModelForSequenceClassification
    safe = None if config.allow_pickle else True
    load = partial(kind.from_pretrained, path, dtype=where.dtype, use_safetensors=safe)
    most = min(config.max_input_tokens or longest(facts, tokeniser), longest(facts, tokeniser))
    reader = (LocatingTokeniser if tags else Tokeniser)(tokeniser.backend_tokenizer, most)
    made = partial(
        Tagger if tags else Classifier,
        card=card(facts, tags=tags),
        tokeniser=reader,
        pad_id=tokeniser.pad_token_id or 0,
    )
    module, weights = opening.opened(config, key, where, load, [path], _yardstick(made, reader))
    return made(module, weights=weights)


def _yardstick(made: Callable[[Any], Classifier], reader: Tokeniser) -> Yardstick:
    """What a classifier, once made of a module, says of our texts; of a tagger, of each of their tokens."""

    def answer(module: Any) -> Tensor:
        rows = made(module).rows(sample(reader))
        return torch.cat([torch.from_numpy(np.atleast_2d(row)) for row in rows])

    return Yardstick(answer, quality.labels, reader.max_tokens)


def card(facts: Any, *, tags: bool = False) -> Card:
    """What a transformers configuration says of a classifier."""
    labels = tuple(str(facts.id2label[index]) for index in range(facts.num_labels))
    return Card(
        labels=labels,
        pairs=True,
        typed=getattr(facts, "type_vocab_size", 0) > 1,
        several=facts.problem_type == _SEVERAL or len(labels) == 1,
        tags=tags,
    )


def longest(facts: Any, tokeniser: Any) -> int:
    """The most tokens that a checkpoint takes: what its positions or its tokeniser allow, whichever is less."""
    positions = int(getattr(facts, "max_position_embeddings", _USUAL))
    if facts.model_type in _OFFSET:
        positions -= (facts.pad_token_id or 0) + 1
    return min(positions, int(tokeniser.model_max_length))


def load_zero_shot(config: ZeroShotConfig, engine: EngineConfig, key: str = "zero_shot") -> ZeroShot:
    """Loads the zero-shot encoder, of the section `key`. Raises ConfigError."""
    where = _where(config, engine, key)
    directory = source.locate(config, key)
    with source.reading(key, directory):
        tokeniser: Any = AutoTokenizer.from_pretrained(directory)
        most = min(config.max_input_tokens, longest(AutoConfig.from_pretrained(directory), tokeniser))
        reader = Tokeniser(tokeniser.backend_tokenizer, most)
        encoder = load_encoder(config, key, directory, where, reader, tokeniser.pad_token_id or 0)
    return ZeroShot(encoder, reader)
