"""From the names in a configuration to classifiers that are ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer

from meshgate.runtime.config import ConfigError
from services import device
from services.classification import adapter
from services.classification.config import SHIPPED, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.model import Card, Classifier, ZeroShot
from services.classification.tagging import LocatingTokeniser, Tagger
from services.encoder import load_encoder
from services.models import source
from services.tokens import Tokeniser

_TAGS: Final = "ForTokenClassification"
_SEVERAL: Final = "multi_label_classification"
_OFFSET: Final = frozenset({"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "mpnet"})
"""Kinds of model that count positions from behind the padding token's number, and so have fewer than they say."""

_USUAL: Final = 512
"""The most tokens of a checkpoint that bounds them nowhere."""


def load_classifier(config: ClassifierConfig, engine: EngineConfig, key: str = "classifiers.0") -> Classifier:
    """Loads a named classifier, of the section `key`. Raises ConfigError."""
    where = device.device_of(engine.device)
    dtype = device.dtype_of(engine.dtype, where)
    if config.source != SHIPPED:
        directory = source.locate(config, key)
        with source.reading(key, directory):
            return _pretrained(config, directory, where, dtype)
    try:
        return _shipped(where, dtype)
    except (OSError, ValueError, SafetensorError, adapter.AdapterError) as error:
        raise ConfigError(f"{key}.source: {config.source}: {error}") from error


def _shipped(where: torch.device, dtype: torch.dtype) -> Classifier:
    base = adapter.installed_base()
    loaded = adapter.load_sentiment(base, adapter.shipped_dir(), dtype, where)
    tokeniser: Any = AutoTokenizer.from_pretrained(base)
    reader = Tokeniser(tokeniser.backend_tokenizer, loaded.max_tokens)
    return Classifier(loaded.model, Card(loaded.labels), reader, tokeniser.pad_token_id)


def _pretrained(config: ClassifierConfig, path: Path, where: torch.device, dtype: torch.dtype) -> Classifier:
    tokeniser: Any = AutoTokenizer.from_pretrained(path)
    facts = AutoConfig.from_pretrained(path)
    tags = any(name.endswith(_TAGS) for name in facts.architectures or ())
    kind: Any = AutoModelForTokenClassification if tags else AutoModelForSequenceClassification
    module: Any = kind.from_pretrained(path, dtype=dtype, use_safetensors=None if config.allow_pickle else True)
    most = min(config.max_input_tokens or longest(facts, tokeniser), longest(facts, tokeniser))
    pad_id = tokeniser.pad_token_id or 0
    if tags:
        return Tagger(
            module.to(where).eval(), card(facts), LocatingTokeniser(tokeniser.backend_tokenizer, most), pad_id
        )
    return Classifier(module.to(where).eval(), card(facts), Tokeniser(tokeniser.backend_tokenizer, most), pad_id)


def card(facts: Any) -> Card:
    """What a transformers configuration says of a classifier."""
    labels = tuple(str(facts.id2label[index]) for index in range(facts.num_labels))
    return Card(
        labels=labels,
        pairs=True,
        typed=getattr(facts, "type_vocab_size", 0) > 1,
        several=facts.problem_type == _SEVERAL or len(labels) == 1,
    )


def longest(facts: Any, tokeniser: Any) -> int:
    """The most tokens that a checkpoint takes: what its positions or its tokeniser allow, whichever is less."""
    positions = int(getattr(facts, "max_position_embeddings", _USUAL))
    if facts.model_type in _OFFSET:
        positions -= (facts.pad_token_id or 0) + 1
    return min(positions, int(tokeniser.model_max_length))


def load_zero_shot(config: ZeroShotConfig, engine: EngineConfig, key: str = "zero_shot") -> ZeroShot:
    """Loads the zero-shot encoder, of the section `key`. Raises ConfigError."""
    directory = source.locate(config, key)
    where = device.device_of(engine.device)
    dtype = device.dtype_of(engine.dtype, where)
    with source.reading(key, directory):
        tokeniser: Any = AutoTokenizer.from_pretrained(directory)
        most = min(config.max_input_tokens, longest(AutoConfig.from_pretrained(directory), tokeniser))
        encoder = load_encoder(directory, where, dtype, tokeniser.pad_token_id or 0, allow_pickle=config.allow_pickle)
    return ZeroShot(encoder, Tokeniser(tokeniser.backend_tokenizer, most), config.scale)
