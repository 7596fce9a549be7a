"""The classification service put together, and its life: load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from meshgate.runtime.config import ConfigError
from meshgate.runtime.metrics_server import Gauges, MetricsServer
from meshgate.v1 import classification_pb2_grpc, models_pb2, models_pb2_grpc
from services import batching
from services.batching import Batcher, metrics
from services.batching.workers import USUAL, typical_seconds
from services.classification import model_proxy
from services.classification.config import ClassificationConfig, ClassifierConfig
from services.classification.custom.store import Store
from services.classification.custom.tenant_classifiers import TenantClassifiers
from services.classification.custom.training import Trainer
from services.classification.model_proxy import ClassifierProxy, Item, ModelInfo, ModelProxy, Scores, ZeroShotProxy
from services.classification.served import Custom, Served
from services.classification.servicer import ClassificationServicer
from services.classification.validate import Models
from services.model_process import Host, InprocessHost, SubprocessHost
from services.models.config import unique
from services.models.config_watcher import ConfigWatcher
from services.models.listing import ModelServicer
from services.models.model_table import ModelSlot
from services.models.reloader import Reloader, differences
from services.text.preparing import PreparationQueue
from services.text.tokens import Cut, Tokens

_log = logging.getLogger(__name__)

_PROBE: Final = "The quick brown fox jumps over the lazy dog."
"""Its vector tells one encoder from another."""
_LOAD_CLASSIFIER: Final = "services.classification.model_worker:load_classifier"
_LOAD_ZERO_SHOT: Final = "services.classification.model_worker:load_zero_shot"


@dataclass(frozen=True)
class _Loaded:
    classifiers: list[tuple[ClassifierConfig, ClassifierProxy]]
    zero_shot: ZeroShotProxy | None


class App:
    """Implements meshgate.rpc.server.Application."""

    name = "classification"

    def __init__(self, config: ClassificationConfig, path: Path | None = None, host: Host | None = None) -> None:
        """`path` is the file that the configuration came from: where it changes, the classifiers do. `host` is where
        models are run; without one, here.
        """
        self.failed = asyncio.Event()
        self._host = host or InprocessHost()
        self._config = config
        self._place: ModelSlot[Served] = ModelSlot()
        self._swap = Reloader[ClassifierConfig, ClassifierProxy](self._classifier)
        self._watch = ConfigWatcher(path, ClassificationConfig, self.take) if path is not None else None
        self._zero_shot: ZeroShotProxy | None = None
        self._custom: Custom | None = None
        self._preparing = PreparationQueue(config.engine.queue_bytes)
        self._exposition: MetricsServer | None = None

    async def start(self) -> None:
        """Loads the models and warms them up. Raises ConfigError when one can't be loaded."""
        engine = self._config.engine
        bounds = batching.Bounds(engine.batch_tokens, engine.queue_tokens, engine.queue_calls, engine.hang_seconds)
        sound = Item(_Default(self._place), Tokens([1] * 4, [0] * 4))
        batcher = Batcher[Item, Scores](model_proxy.run, bounds, self.failed, classify=self._host.classify, sound=sound)
        loop = asyncio.get_running_loop()
        self._host.start(lambda: loop.call_soon_threadsafe(batcher.fail))
        loaded = await self._load(self._config)
        self._zero_shot = loaded.zero_shot
        readings = Gauges()
        metrics.export(readings, batcher)
        self._exposition = MetricsServer(self._config.metrics, readings, *self._host.collectors)
        await self._exposition.start()
        batcher.start(engine.concurrent_batches or typical_seconds(loaded.classifiers[0][1].facts.threads))
        models = self._models(self._config, loaded)
        self._custom = await self._trains(loaded.zero_shot, batcher, models)
        self._place.served = Served(models, batcher, self._cards(self._config, loaded), self._custom, self._preparing)
        if self._watch is not None:
            self._watch.start()
        _log.info("models loaded", extra={"classifiers": [config.name for config, _ in loaded.classifiers]})

    async def take(self, config: ClassificationConfig) -> None:
        """Serves the classifiers of a configuration, and no others; those that are loaded already stay as they are. All
        else in it waits for the next start, zero-shot too: the tenants' own classifiers stand on its encoder. Raises
        ConfigError, and then all stays as it was.
        """
        served = self._place.get()
        kept = config.model_copy(update={"zero_shot": self._config.zero_shot})
        try:
            unique([*kept.classifiers, *([kept.zero_shot] if kept.zero_shot else [])])
        except ValueError as error:
            raise ConfigError(f"classifiers: {error}") from error
        loaded = await self._load(kept)
        models, cards = self._models(kept, loaded), self._cards(kept, loaded)
        self._place.served = Served(models, served.batcher, cards, self._custom, self._preparing)

    def cpu_seconds(self) -> float:
        """What this process and the models' have used."""
        return time.process_time() + self._host.cpu_seconds()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        servicer = ClassificationServicer(self._place)
        classification_pb2_grpc.add_ClassificationServiceServicer_to_server(servicer, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(lambda: self._place.get().cards), server)
        return ("meshgate.v1.ClassificationService", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        """Lets what runs finish for at most `grace` seconds, then drops it."""
        if self._watch is not None:
            await self._watch.stop()
        until = time.monotonic() + grace
        if self._place.served is not None:
            await self._place.served.batcher.stop(grace)
        if self._custom is not None:
            await self._custom.trainer.stop(max(0.0, until - time.monotonic()))
        self._preparing.close()
        await asyncio.to_thread(self._host.stop)
        if self._exposition is not None:
            await self._exposition.stop()

    async def _trains(
        self, encoder: ZeroShotProxy | None, batcher: Batcher[Item, Scores], models: Models
    ) -> Custom | None:
        """What makes and serves classifiers of the tenants' own, where there is an encoder for them."""
        custom = self._config.custom
        if custom is None or encoder is None:
            return None
        if encoder.entails:
            _log.warning("zero-shot is by entailment and makes no vectors, so tenants can't train classifiers")
            return None
        tokens = encoder.tokeniser.read([encoder.prompt + _PROBE], Cut.END, "inputs")
        [probe] = await batcher.submit([Item(encoder, tokens[0])], [tokens[0].length])
        owned = TenantClassifiers(
            Store(custom.directory, classifiers=custom.classifiers, versions=custom.versions), probe
        )
        return Custom(owned, Trainer(owned, encoder, batcher, custom, models.names, preparing=self._preparing))

    async def _load(self, config: ClassificationConfig) -> _Loaded:
        sections = {f"classifiers.{place}": each for place, each in enumerate(config.classifiers)}
        classifiers = await self._swap.load(sections)
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


class _Default:
    """Whichever classifier is the default when it runs."""

    def __init__(self, place: ModelSlot[Served]) -> None:
        self._place = place

    @property
    def _model(self) -> ClassifierProxy:
        models = self._place.get().models
        return models.classifiers[models.default][1]

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Of a plain text instead: a batch of numbers would not do for every kind of model."""
        model = self._model
        return model.rows(model.tokeniser.read([_PROBE] * len(batch), Cut.END, "inputs"))


def build(config: ClassificationConfig, path: Path | None = None) -> App:
    """The service for a configuration, its models in a process of their own; nothing is loaded yet. Needs a running
    event loop.
    """
    engine = config.engine
    return App(config, path, SubprocessHost(App.name, engine.threads, engine.concurrent_batches or USUAL))


def _describe(card: models_pb2.Model, facts: ModelInfo, most: int) -> None:
    """Adds what was found out by loading."""
    card.max_input_tokens, card.max_batch = facts.max_tokens, most
    card.dtype, card.device, card.quantisation = facts.dtype, facts.device, facts.quantisation
    if facts.quality is not None:
        card.quality = facts.quality
    card.loaded_at.FromSeconds(int(time.time()))
