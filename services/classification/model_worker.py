"""What a host calls to load a classifier or an encoder for zero-shot, and what it then runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from services.classification.config import ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.model import loading
from services.classification.model.classifier import Classifier, ZeroShot
from services.classification.model_proxy import Input, ModelInfo, Scores
from services.cpu.thread_tuner import THREADS
from services.encoders.encoder import first_batches
from services.model_process.host import Loaded
from services.models.config import SourceConfig
from services.models.starting import starting
from services.text.tokens import Tokens
from services.weights import compiling


def load_classifier(config: ClassifierConfig, engine: EngineConfig, key: str) -> Loaded:
    """Loads the classifier of the section `key` and warms it up. Raises ConfigError."""
    torch.set_num_threads(engine.threads or THREADS)
    classifier = loading.load_classifier(config, engine, key)
    return _ready(classifier, config, key)


def load_zero_shot(config: ZeroShotConfig, engine: EngineConfig) -> Loaded:
    """Loads what is used for zero-shot and warms it up. Raises ConfigError."""
    torch.set_num_threads(engine.threads or THREADS)
    model = loading.load_zero_shot(config, engine)
    return _ready(model, config, "zero_shot")


def _ready(model: Classifier | ZeroShot, config: SourceConfig, key: str) -> Loaded:
    _warm_up(model, config, key)
    facts = ModelInfo(
        tokeniser=model.tokeniser.backend,
        max_tokens=model.tokeniser.max_tokens,
        card=model.card,
        dtype=model.dtype,
        device=model.device,
        threads=model.threads,
        quantisation=model.weights.quantisation,
        quality=model.weights.quality,
    )
    return Loaded(facts, partial(_run, model))


def _run(model: Classifier | ZeroShot, batch: Sequence[Input]) -> Sequence[Scores]:
    return model.rows([Tokens(each.ids, each.types) for each in batch])


def _warm_up(model: Classifier | ZeroShot, config: SourceConfig, key: str) -> None:
    def run() -> None:
        for batch in first_batches(model.tokeniser, compiled=config.compile):
            model.rows(batch)

    with starting(key, f"{config.name} in its first batches"):
        if config.compile:
            compiling.warm(config.name, key, run)
        else:
            run()
