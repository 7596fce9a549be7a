"""The application of the classification service."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from meshgate.runtime.config import ConfigError
from meshgate.v1 import classification_pb2_grpc, models_pb2, models_pb2_grpc
from services.classification import model_proxy
from services.classification.config import ClassificationConfig, ClassifierConfig
from services.classification.custom.store import Store
from services.classification.custom.tenant_classifiers import TenantClassifiers
from services.classification.custom.training import Trainer
from services.classification.model_proxy import ClassifierProxy, Item, ModelInfo, ModelProxy, Scores, ZeroShotProxy
from services.classification.served import Custom, Served
from services.classification.servicer import ClassificationServicer
from services.classification.validate import Models
from services.common.encoder_app import EncoderApp, subprocess_host
from services.model_process import Host
from services.models.config import unique
from services.models.listing import ModelServicer
from services.models.model_table import ModelSlot
from services.models.reloader import Reloader, differences
from services.text.tokens import Cut, Tokens

_log = logging.getLogger(__name__)

_PROBE: Final = "The quick brown fox jumps over the lazy dog."
"""A text whose vector identifies the encoder."""
_LOAD_CLASSIFIER: Final = "services.classification.model_worker:load_classifier"
_LOAD_ZERO_SHOT: Final = "services.classification.model_worker:load_zero_shot"


@dataclass(frozen=True)
class _Loaded:
    classifiers: list[tuple[ClassifierConfig, ClassifierProxy]]
    zero_shot: ZeroShotProxy | None


class App(EncoderApp[ClassificationConfig, Served, Item, Scores]):
    """The classification service."""

    name = "classification"

    def __init__(self, config: ClassificationConfig, path: Path | None = None, host: Host | None = None) -> None:
        """`path` is the configuration file to watch; None watches none. `host` runs the models; None runs them in this
        process.
        """
        super().__init__(config, config.engine, model_proxy.run, path, host)
        self._reloader = Reloader[ClassifierConfig, ClassifierProxy](self._classifier)
        self._zero_shot: ZeroShotProxy | None = None
        self._custom: Custom | None = None

    async def reload(self, config: ClassificationConfig) -> None:
        """Serves the classifiers of a configuration and no others. The zero-shot model stays until the next start,
        because the tenants' own classifiers use its vectors. Raises ConfigError; the models in service then stay.
        """
        kept = config.model_copy(update={"zero_shot": self._config.zero_shot})
        try:
            unique([*kept.classifiers, *([kept.zero_shot] if kept.zero_shot else [])])
        except ValueError as error:
            raise ConfigError(f"classifiers: {error}") from error
        loaded = await self._load(kept)
        models, cards = self._models(kept, loaded), self._cards(kept, loaded)
        self._slot.served = Served(models, self._batcher, cards, self._custom, self._preparing)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        servicer = ClassificationServicer(self._slot)
        classification_pb2_grpc.add_ClassificationServiceServicer_to_server(servicer, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(lambda: self._slot.get().cards), server)
        return ("meshgate.v1.ClassificationService", "meshgate.v1.ModelService")

    async def _start_models(self) -> None:
        self._start_host()
        loaded = await self._load(self._config)
        self._zero_shot = loaded.zero_shot
        self._start_batcher(loaded.classifiers[0][1].facts.threads)
        models = self._models(self._config, loaded)
        self._custom = await self._training(loaded.zero_shot, models)
        cards = self._cards(self._config, loaded)
        self._slot.served = Served(models, self._batcher, cards, self._custom, self._preparing)
        _log.info("models loaded", extra={"classifiers": [config.name for config, _ in loaded.classifiers]})

    async def _stop_trainings(self, grace: float) -> None:
        if self._custom is not None:
            await self._custom.trainer.stop(grace)

    def _trial_input(self) -> Item:
        return Item(_DefaultClassifier(self._slot), Tokens([1] * 4, [0] * 4))

    async def _training(self, encoder: ZeroShotProxy | None, models: Models) -> Custom | None:
        """The parts that train and serve the tenants' own classifiers; None without an encoder for them."""
        custom = self._config.custom
        if custom is None or encoder is None:
            return None
        if encoder.entails:
            _log.warning("zero-shot is by entailment and makes no vectors, so tenants can't train classifiers")
            return None
        tokens = encoder.tokeniser.read([encoder.prompt + _PROBE], Cut.END, "inputs")
        [probe] = await self._batcher.submit([Item(encoder, tokens[0])], [tokens[0].length])
        owned = TenantClassifiers(
            Store(custom.directory, classifiers=custom.classifiers, versions=custom.versions), probe
        )
        return Custom(owned, Trainer(owned, encoder, self._batcher, custom, models.names, preparing=self._preparing))

    async def _load(self, config: ClassificationConfig) -> _Loaded:
        sections = {f"classifiers.{place}": each for place, each in enumerate(config.classifiers)}
        classifiers = await self._reloader.load(sections)
        zero_shot = self._zero_shot
        if zero_shot is None and config.zero_shot is not None:
            hosted = await differences(self._host.load, _LOAD_ZERO_SHOT, config.zero_shot, config.engine)
            zero = config.zero_shot
            zero_shot = ZeroShotProxy(hosted, zero.scale, midpoint=zero.midpoint, hypothesis=zero.hypothesis)
        return _Loaded(list(zip(config.classifiers, classifiers, strict=True)), zero_shot)

    def _classifier(self, config: ClassifierConfig, key: str) -> ClassifierProxy:
        return ClassifierProxy(self._host.load(_LOAD_CLASSIFIER, config, self._config.engine, key))

    def _models(self, config: ClassificationConfig, loaded: _Loaded) -> Models:
        zero = config.zero_shot
        names = {
            name: (each.name, classifier)
            for each, classifier in loaded.classifiers
            for name in (each.name, *each.aliases)
        }
        return Models(
            classifiers=names,
            default=config.classifiers[0].name,
            zero_shot=(zero.name, loaded.zero_shot) if zero and loaded.zero_shot else None,
            zero_shot_names=frozenset((zero.name, *zero.aliases)) if zero else frozenset(),
            max_batch=self._config.engine.max_batch,
            most_tokens=self._config.engine.queue_tokens,
        )

    def _cards(self, config: ClassificationConfig, loaded: _Loaded) -> list[models_pb2.Model]:
        most, default = self._config.engine.max_batch, config.classifiers[0].name
        cards = [
            models_pb2.Model(
                name=each.name,
                aliases=each.aliases,
                capabilities=[models_pb2.CAPABILITY_CLASSIFY],
                default=each.name == default,
                labels=classifier.card.labels,
            )
            for each, classifier in loaded.classifiers
        ]
        models: list[ModelProxy] = [classifier for _, classifier in loaded.classifiers]
        zero = config.zero_shot
        if zero is not None and loaded.zero_shot is not None:
            kinds = [models_pb2.CAPABILITY_ZERO_SHOT]
            cards.append(models_pb2.Model(name=zero.name, aliases=zero.aliases, capabilities=kinds))
            if prompt := loaded.zero_shot.prompt:
                cards[-1].default_prompt_tokens = loaded.zero_shot.tokeniser.count(prompt)
            models.append(loaded.zero_shot)
        for card, model in zip(cards, models, strict=True):
            _describe(card, model.facts, most)
        return cards


class _DefaultClassifier:
    """The classifier that is the default at the time of the run."""

    def __init__(self, slot: ModelSlot[Served]) -> None:
        self._slot = slot

    @property
    def _model(self) -> ClassifierProxy:
        models = self._slot.get().models
        return models.classifiers[models.default][1]

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Runs a plain text in place of each input: not every kind of model accepts a fixed list of token ids."""
        model = self._model
        return model.rows(model.tokeniser.read([_PROBE] * len(batch), Cut.END, "inputs"))


def build(config: ClassificationConfig, path: Path | None = None) -> App:
    """The service of a configuration, with its models in a process of their own. Loads nothing yet. Needs a running
    event loop.
    """
    return App(config, path, subprocess_host(App.name, config.engine))


def _describe(card: models_pb2.Model, facts: ModelInfo, most: int) -> None:
    """Adds to a card what is known once its model is loaded."""
    card.max_input_tokens, card.max_batch = facts.max_tokens, most
    card.dtype, card.device, card.quantisation = facts.dtype, facts.device, facts.quantisation
    if facts.quality is not None:
        card.quality = facts.quality
    card.loaded_at.FromSeconds(int(time.time()))
