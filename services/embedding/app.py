"""The embedding service put together, and its life: load, warm up, serve, change models, drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
import torch

from meshgate.runtime.telemetry import Exposition, Readings
from meshgate.v1 import embedding_pb2_grpc, models_pb2, models_pb2_grpc
from services import batching, faults
from services.batching import Batcher, figures
from services.crew import THREADS
from services.embedding import model
from services.embedding.config import EmbeddingConfig, ModelConfig
from services.embedding.model import EmbeddingModel, Item, Vector
from services.embedding.servicer import EmbeddingServicer, Models, Served
from services.embedding.validate import Bounds
from services.models.listing import ModelServicer
from services.models.place import Place, Table
from services.models.swap import Swap
from services.models.watch import Watch
from services.weights import compiling


class App:
    """Implements meshgate.runtime.server.Application."""

    name = "embedding"

    def __init__(self, config: EmbeddingConfig, path: Path | None = None) -> None:
        """`path` is the file that the configuration came from: where it changes, the models do."""
        self.failed = asyncio.Event()
        self._config = config
        self._place: Models = Place()
        self._swap = Swap[ModelConfig, Served](self._load)
        self._watch = Watch(path, EmbeddingConfig, self.take) if path is not None else None
        engine = config.engine
        bounds = batching.Bounds(engine.batch_tokens, engine.queue_tokens, engine.queue_calls, engine.hang_seconds)
        sound = model.sound(_Default(self._place))
        self._batcher = Batcher[Item, Vector](model.run, bounds, self.failed, judge=faults.judge, sound=sound)
        self._started = False
        readings = Readings()
        figures.tell(readings, self._batcher)
        self._exposition = Exposition(config.metrics, readings)

    async def start(self) -> None:
        """Loads the models and warms them up. Raises ConfigError when one can't be loaded."""
        await self._exposition.start()
        await self.take(self._config)
        self._batcher.start()
        self._started = True
        if self._watch is not None:
            self._watch.start()

    async def take(self, config: EmbeddingConfig) -> None:
        """Serves the models of a configuration, and no others; those that are loaded already stay as they are. All
        else in it waits for the next start. Raises ConfigError, and then all stays as it was.
        """
        self._place.served = Table(await self._swap.load(config.sections))

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
        await self._exposition.stop()

    def _load(self, config: ModelConfig, key: str) -> Served:
        torch.set_num_threads(self._config.engine.threads or THREADS)
        loaded = _load(config, key)
        bounds = Bounds(
            max_batch=self._config.engine.max_batch,
            dimensions=loaded.encoder.dimensions,
            pooling=loaded.card.pooling,
            prompts={**loaded.card.prompts, **config.prompts},
        )
        return Served(loaded, self._batcher, bounds, _card(config, loaded, bounds, default=key == "model"))


class _Default:
    """Whichever model is the default when it runs."""

    def __init__(self, place: Models) -> None:
        self._place = place

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        return self._place.get().default.model.run(batch)


def build(config: EmbeddingConfig, path: Path | None = None) -> App:
    """The service for a configuration; nothing is loaded yet. Needs a running event loop."""
    return App(config, path)


def _load(config: ModelConfig, key: str = "model") -> EmbeddingModel:
    loaded = model.load(config, key)
    if config.compile:
        compiling.warm(config.name, key, lambda: loaded.warm_up(compiled=True))
    else:
        loaded.warm_up()
    return loaded


def _card(config: ModelConfig, loaded: EmbeddingModel, bounds: Bounds, *, default: bool) -> models_pb2.Model:
    card = models_pb2.Model(
        name=config.name,
        aliases=config.aliases,
        capabilities=[models_pb2.CAPABILITY_EMBED],
        default=default,
        max_input_tokens=loaded.tokeniser.max_tokens,
        max_batch=bounds.max_batch,
        dimensions=bounds.dimensions,
        prompt_names=sorted(bounds.prompts),
        dtype=loaded.encoder.dtype,
        device=loaded.encoder.device,
        quantisation=loaded.encoder.weights.quantisation,
        quality=loaded.encoder.weights.quality,
    )
    card.loaded_at.FromSeconds(int(time.time()))
    return card
