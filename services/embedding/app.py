"""The embedding service put together, and its life: load, warm up, serve, change models, drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc

from meshgate.runtime.metrics_server import Gauges, MetricsServer
from meshgate.v1 import embedding_pb2_grpc, models_pb2, models_pb2_grpc
from services import batching
from services.batching import Batcher, metrics
from services.batching.workers import USUAL, typical_seconds
from services.embedding import model_proxy
from services.embedding.config import EmbeddingConfig, ModelConfig
from services.embedding.model_proxy import Item, ModelProxy, Vector
from services.embedding.servicer import EmbeddingServicer, Models, Served
from services.embedding.validate import Bounds
from services.model_process import Host, InprocessHost, SubprocessHost
from services.models.config_watcher import ConfigWatcher
from services.models.listing import ModelServicer
from services.models.model_table import ModelSlot, ModelTable
from services.models.reloader import Reloader
from services.text.preparing import PreparationQueue
from services.text.tokens import Cut

_PROBE: Final = "The quick brown fox jumps over the lazy dog."
_LOAD: Final = "services.embedding.model_worker:load"


class App:
    """Implements meshgate.rpc.server.Application."""

    name = "embedding"

    def __init__(self, config: EmbeddingConfig, path: Path | None = None, host: Host | None = None) -> None:
        """`path` is the file that the configuration came from: where it changes, the models do. `host` is where models
        are run; without one, here.
        """
        self.failed = asyncio.Event()
        self._host = host or InprocessHost()
        self._config = config
        self._place: Models = ModelSlot()
        self._swap = Reloader[ModelConfig, Served](self._load)
        self._watch = ConfigWatcher(path, EmbeddingConfig, self.take) if path is not None else None
        engine = config.engine
        bounds = batching.Bounds(engine.batch_tokens, engine.queue_tokens, engine.queue_calls, engine.hang_seconds)
        sound = model_proxy.sound(_Default(self._place))
        self._batcher = Batcher[Item, Vector](
            model_proxy.run, bounds, self.failed, classify=self._host.classify, sound=sound
        )
        self._preparing = PreparationQueue(engine.queue_bytes)
        self._started = False
        readings = Gauges()
        metrics.export(readings, self._batcher)
        self._exposition = MetricsServer(config.metrics, readings, *self._host.collectors)

    async def start(self) -> None:
        """Loads the models and warms them up. Raises ConfigError when one can't be loaded."""
        await self._exposition.start()
        loop = asyncio.get_running_loop()
        self._host.start(lambda: loop.call_soon_threadsafe(self._batcher.fail))
        await self.take(self._config)
        threads = self._place.get().default.model.facts.threads
        self._batcher.start(self._config.engine.concurrent_batches or typical_seconds(threads))
        self._started = True
        if self._watch is not None:
            self._watch.start()

    async def take(self, config: EmbeddingConfig) -> None:
        """Serves the models of a configuration, and no others; those that are loaded already stay as they are. All
        else in it waits for the next start. Raises ConfigError, and then all stays as it was.
        """
        self._place.served = ModelTable(await self._swap.load(config.sections))

    def cpu_seconds(self) -> float:
        """What this process and the models' have used."""
        return time.process_time() + self._host.cpu_seconds()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(self._place), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(lambda: self._place.get().cards), server)
        return ("meshgate.v1.EmbeddingService", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        """Lets what runs finish for at most `grace` seconds, then drops it."""
        if self._watch is not None:
            await self._watch.stop()
        if self._started:
            await self._batcher.stop(grace)
        self._preparing.close()
        await asyncio.to_thread(self._host.stop)
        await self._exposition.stop()

    def _load(self, config: ModelConfig, key: str) -> Served:
        engine = self._config.engine
        loaded = ModelProxy(self._host.load(_LOAD, config, key, engine.threads))
        card = loaded.facts.card
        bounds = Bounds(
            max_batch=engine.max_batch,
            dimensions=loaded.facts.dimensions,
            pooling=card.pooling,
            prompts={**card.prompts, **config.prompts},
            default_prompt=card.default_prompt,
            normalised=card.normalised,
            kept=card.dimensions,
        )
        return Served(
            loaded, self._batcher, bounds, _card(config, loaded, bounds, default=key == "model"), self._preparing
        )


class _Default:
    """Whichever model is the default when it runs."""

    def __init__(self, place: Models) -> None:
        self._place = place

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """Of a plain text instead: a batch of numbers would not do for every kind of model."""
        model = self._place.get().default.model
        tokens = model.tokeniser.read([_PROBE] * len(batch), Cut.END, "inputs")
        return model.run([replace(item, tokens=each) for item, each in zip(batch, tokens, strict=True)])


def build(config: EmbeddingConfig, path: Path | None = None) -> App:
    """The service for a configuration, its models in a process of their own; nothing is loaded yet. Needs a running
    event loop.
    """
    engine = config.engine
    return App(config, path, SubprocessHost(App.name, engine.threads, engine.concurrent_batches or USUAL))


def _card(config: ModelConfig, loaded: ModelProxy, bounds: Bounds, *, default: bool) -> models_pb2.Model:
    card = models_pb2.Model(
        name=config.name,
        aliases=config.aliases,
        capabilities=[models_pb2.CAPABILITY_EMBED],
        default=default,
        max_input_tokens=loaded.tokeniser.max_tokens,
        max_batch=bounds.max_batch,
        dimensions=bounds.dimensions,
        prompt_names=sorted(bounds.prompts),
        dtype=loaded.facts.dtype,
        device=loaded.facts.device,
        quantisation=loaded.facts.quantisation,
        quality=loaded.facts.quality,
    )
    if bounds.default_prompt:
        card.default_prompt_tokens = loaded.tokeniser.count(bounds.prompts[bounds.default_prompt])
    card.loaded_at.FromSeconds(int(time.time()))
    return card
