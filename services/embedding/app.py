"""The embedding service put together, and its life: load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc

from meshgate.runtime.telemetry import Exposition, Readings
from meshgate.v1 import embedding_pb2_grpc, models_pb2, models_pb2_grpc
from services import batching, faults
from services.batching import Batcher, figures
from services.embedding import model
from services.embedding.config import EmbeddingConfig
from services.embedding.model import EmbeddingModel, Item, Vector
from services.embedding.servicer import EmbeddingServicer, ModelServicer, Place, Served
from services.embedding.validate import Bounds

_log = logging.getLogger(__name__)


class App:
    """Implements meshgate.runtime.server.Application."""

    name = "embedding"

    def __init__(self, config: EmbeddingConfig) -> None:
        self.failed = asyncio.Event()
        self._config = config
        self._place = Place()
        self._exposition: Exposition | None = None

    async def start(self) -> None:
        """Loads the model and warms it up. Raises ConfigError when it can't be loaded."""
        loaded = await asyncio.to_thread(_load, self._config)
        engine = self._config.engine
        bounds = batching.Bounds(engine.batch_tokens, engine.queue_tokens, engine.queue_calls, engine.hang_seconds)
        batcher = Batcher[Item, Vector](loaded.run, bounds, self.failed, judge=faults.judge, sound=loaded.sound)
        readings = Readings()
        figures.tell(readings, batcher)
        self._exposition = Exposition(self._config.metrics, readings)
        await self._exposition.start()
        batcher.start()
        self._place.served = self._serve(loaded, batcher)
        _log.info("model loaded", extra={"dtype": loaded.encoder.dtype, "dimensions": loaded.encoder.dimensions})

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(self._place), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self._place), server)
        return ("meshgate.v1.EmbeddingService", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        """Lets what runs finish for at most `grace` seconds, then drops it."""
        if self._place.served is not None:
            await self._place.served.batcher.stop(grace)
        if self._exposition is not None:
            await self._exposition.stop()

    def _serve(self, loaded: EmbeddingModel, batcher: Batcher[Item, Vector]) -> Served:
        settings = self._config.model
        bounds = Bounds(
            names=frozenset(("", settings.name, *settings.aliases)),
            max_batch=self._config.engine.max_batch,
            dimensions=loaded.encoder.dimensions,
            pooling=loaded.card.pooling,
            prompts={**loaded.card.prompts, **settings.prompts},
        )
        card = models_pb2.Model(
            name=settings.name,
            aliases=settings.aliases,
            capabilities=[models_pb2.CAPABILITY_EMBED],
            default=True,
            max_input_tokens=loaded.tokeniser.max_tokens,
            max_batch=bounds.max_batch,
            dimensions=bounds.dimensions,
            prompt_names=sorted(bounds.prompts),
            dtype=loaded.encoder.dtype,
        )
        return Served(loaded, batcher, bounds, card)


def build(config: EmbeddingConfig) -> App:
    """The service for a configuration; nothing is loaded yet. Needs a running event loop."""
    return App(config)


def _load(config: EmbeddingConfig) -> EmbeddingModel:
    loaded = model.load(config.model, config.engine.threads)
    loaded.warm_up()
    return loaded
