"""From the names in a configuration to classifiers that are ready to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification

from meshgate.runtime.config import ConfigError
from services.classification.config import SHIPPED, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.model import entailment, sentiment
from services.classification.model.classifier import Classifier, ZeroShot
from services.classification.model.offsets import LocatingTokeniser
from services.classification.model.tagger import Tagger
from services.classification.model_proxy import Card
from services.common import device
from services.cpu import cpu_share
from services.encoders.encoder import sample
from services.encoders.inputs import Form
from services.encoders.parity import Parity
from services.encoders.positions import longest
from services.models import source
from services.models.config import SourceConfig
from services.models.starting import starting
from services.sentence_transformers import model as sentences
from services.text import load_tokeniser
from services.text.tokens import Tokeniser, Tokens
from services.weights import load_weights, quality
from services.weights.completeness import complete
from services.weights.load_weights import Where
from services.weights.quality import QualityProbe

_TAGS: Final = "ForTokenClassification"
_CLASSIFIES: Final = "ForSequenceClassification"
_SEVERAL: Final = "multi_label_classification"
_REGRESSION: Final = "regression"


def load_classifier(config: ClassifierConfig, engine: EngineConfig, key: str = "classifiers.0") -> Classifier:
    """Loads a named classifier, of the section `key`. Raises ConfigError."""
    where = _where(config, engine, key)
    if config.source != SHIPPED:
        directory = source.locate(config, key)
        with starting(key, config.name), source.reading(key, directory):
            return _pretrained(config, key, directory, where, config.max_input_tokens)
    if config.quantisation != "none" and where.device.type != "cpu":
        raise ConfigError(f"{key}.quantisation: {config.source} is quantised on a CPU only")
    try:
        with starting(key, config.name):
            return _shipped(config, key, where)
    except (OSError, ValueError, SafetensorError, sentiment.AdapterError) as error:
        raise ConfigError(f"{key}.source: {config.source}: {error}") from error


def _where(config: SourceConfig, engine: EngineConfig, key: str) -> Where:
    placed = device.device_of(engine.device, "engine")
    load_weights.check(config, key, placed)
    return Where(placed, device.dtype_of(engine.dtype, placed))


def _shipped(config: ClassifierConfig, key: str, where: Where) -> Classifier:
    base, updates = sentiment.installed_base(), sentiment.shipped_dir()
    loaded = sentiment.load_sentiment(base, updates, where.dtype, where.device)
    tokeniser, backend = load_tokeniser.load(base, key)
    reader = Tokeniser(backend, loaded.max_tokens)
    made = partial(Classifier, card=Card(loaded.labels), tokeniser=reader, form=Form(tokeniser.pad_token_id))
    module, weights = load_weights.load_weights(
        config, key, where, lambda: loaded.model, [base, updates], _yardstick(made, reader)
    )
    return made(module, weights=weights)


def _pretrained(config: SourceConfig, key: str, path: Path, where: Where, most: int | None) -> Classifier:
    facts = AutoConfig.from_pretrained(path)
    tags = any(name.endswith(_TAGS) for name in facts.architectures or ())
    tokeniser, backend = load_tokeniser.load(path, key)
    bound = longest(facts, tokeniser.model_max_length)
    reader = (LocatingTokeniser if tags else Tokeniser)(backend, min(most or bound, bound))
    made = partial(Tagger if tags else Classifier, card=card(facts, tags=tags), tokeniser=reader)

    def answer(module: Any, form: Form, batch: Sequence[Tokens]) -> list[Tensor]:
        return [torch.from_numpy(row) for row in made(module, form=form).rows(batch)]

    parity = Parity(key, path, tokeniser, reader, answer, labels=not tags)
    kind: Any = AutoModelForTokenClassification if tags else AutoModelForSequenceClassification
    safe = None if config.allow_pickle else True
    read = partial(kind.from_pretrained, path, config=facts, dtype=where.dtype, use_safetensors=safe)
    load = parity.around(complete(read, key, path), where)
    yardstick = _yardstick(lambda module: made(module, form=parity.form), reader)
    module, weights = load_weights.load_weights(config, key, where, load, [path], yardstick)
    if not (weights.quantisation or config.compile):
        parity.check(module)
    return made(module, form=parity.form, weights=weights)


def _yardstick(made: Callable[[Any], Classifier], reader: Tokeniser) -> QualityProbe:
    """What a classifier, once made of a module, says of our texts; of a tagger, of each of their tokens."""

    @cpu_share.side_by_side()
    def answer(module: Any) -> Tensor:
        rows = made(module).rows(sample(reader))
        return torch.cat([torch.from_numpy(np.atleast_2d(row)) for row in rows])

    return QualityProbe(answer, quality.labels, reader.max_tokens)


def card(facts: Any, *, tags: bool = False) -> Card:
    """What a transformers configuration says of a classifier."""
    labels = tuple(str(facts.id2label[index]) for index in range(facts.num_labels))
    return Card(
        labels=labels,
        pairs=True,
        several=facts.problem_type == _SEVERAL or len(labels) == 1,
        raw=facts.problem_type == _REGRESSION,
        tags=tags,
    )


def load_zero_shot(config: ZeroShotConfig, engine: EngineConfig, key: str = "zero_shot") -> ZeroShot | Classifier:
    """Loads what is used for zero-shot, of the section `key`: a classifier of entailment, or else an encoder. Raises
    ConfigError.
    """
    where = _where(config, engine, key)
    directory = source.locate(config, key)
    with starting(key, config.name), source.reading(key, directory):
        facts = AutoConfig.from_pretrained(directory)
        if any(name.endswith(_CLASSIFIES) for name in facts.architectures or ()):
            return _entailing(config, key, directory, where)
        return ZeroShot(sentences.load(config, key, directory, where, config.max_input_tokens))


def _entailing(config: ZeroShotConfig, key: str, directory: Path, where: Where) -> Classifier:
    made = _pretrained(config, key, directory, where, config.max_input_tokens)
    judges = entailment.judges(made.card.labels)
    if judges is None:
        raise ConfigError(f"{key}.source: a classifier is used for zero-shot where it has a label `entailment`")
    made.card = replace(made.card, judges=judges)
    return made
