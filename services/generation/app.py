"""The generation service put together: load, warm up, serve, change models, drain."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from meshgate.runtime.metrics_server import Gauges, MetricsServer
from meshgate.v1 import generation_pb2, generation_pb2_grpc, models_pb2, models_pb2_grpc
from services.generation import parallel
from services.generation.config import GenerationConfig, ModelConfig
from services.generation.engine import engine_factory
from services.generation.engine.engine_factory import EngineFactory
from services.generation.parallel import Ranks
from services.generation.serving.listing import GenerationModelServicer
from services.generation.serving.refusal_counter import RefusalCounter
from services.generation.serving.served_model import ServedModel, ServedModels
from services.generation.serving.servicer import GenerationServicer
from services.models.config_watcher import ConfigWatcher
from services.models.model_table import ModelSlot, ModelTable
from services.models.reloader import Reloader

_log = logging.getLogger(__name__)


class App:
    """Implements meshgate.rpc.server.Application."""

    name = "generation"

    def __init__(self, config: GenerationConfig, ranks: Ranks | None = None, path: Path | None = None) -> None:
        """`ranks` hold the parts of the model, where it has several; this process is the first of them. `path` is the
        configuration's file: when it changes, the models change. A model in parts never changes.
        """
        self.failed = asyncio.Event()
        self._config = config
        self._place: ServedModels = ModelSlot()
        self._refusals = RefusalCounter()
        loop = asyncio.get_running_loop()
        self._factory = EngineFactory(config, ranks, lambda: loop.call_soon_threadsafe(self.failed.set))
        self._swap = Reloader[ModelConfig, ServedModel](self._factory.load)
        watched = path is not None and ranks is None
        self._watch = ConfigWatcher(path, GenerationConfig, self.take) if path is not None and watched else None
        readings = Gauges()
        readings.gauge("meshgate_generation_candidates", "Candidates that run or wait.", self._candidates, "model")
        readings.gauge(
            "meshgate_generation_queued_tokens", "Tokens of the prompts that run or wait.", self._tokens, "model"
        )
        readings.counter(
            "meshgate_generation_shed_total", "Calls that ended because memory ran out.", self._shed, "model"
        )
        readings.gauge("meshgate_generation_rows", "Rows that fit into memory.", self._rows, "model")
        readings.counter("meshgate_generation_refused_total", "Calls that were not admitted.", self._refused, "reason")
        readings.counter(
            "meshgate_generation_cached_tokens_total",
            "Prompt tokens that came from the prefix cache.",
            self._cached,
            "model",
        )
        self._exposition = MetricsServer(config.metrics, readings)

    async def start(self) -> None:
        """Loads the models and warms them up. Raises ConfigError when one can't be loaded."""
        await self._exposition.start()
        await self.take(self._config)
        if self._watch is not None:
            self._watch.start()

    async def take(self, config: GenerationConfig) -> None:
        """Serves exactly the models of a configuration. Models that are already loaded stay as they are.

        Every other key takes effect at the next start. Raises ConfigError, and then nothing changes.
        """
        self._place.served = ModelTable(await self._swap.load(config.sections))

    def cpu_seconds(self) -> float:
        """The CPU seconds of this process, without those of other ranks."""
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        servicer = GenerationServicer(self._place, self._refusals)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(GenerationModelServicer(self._place), server)
        files = ((generation_pb2, "GenerationService"), (models_pb2, "ModelService"))
        return [file.DESCRIPTOR.services_by_name[name].full_name for file, name in files]

    async def stop(self, grace: float) -> None:
        """Lets running calls finish for at most `grace` seconds, then fails them."""
        if self._watch is not None:
            await self._watch.stop()
        await self._factory.stop(grace)
        await self._exposition.stop()

    def _candidates(self) -> Mapping[str, float]:
        return {each.limits.name: each.admission.candidates.held for each in self._models()}

    def _tokens(self) -> Mapping[str, float]:
        return {each.limits.name: each.admission.tokens.held for each in self._models()}

    def _shed(self) -> Mapping[str, float]:
        return {each.limits.name: each.row_limit.shed for each in self._models()}

    def _rows(self) -> Mapping[str, float]:
        return {each.limits.name: each.row_limit.rows for each in self._models()}

    def _refused(self) -> Mapping[str, float]:
        return self._refusals.by_reason

    def _cached(self) -> Mapping[str, float]:
        kept = {each.limits.name: each.prefixes for each in self._models()}
        return {name: prefixes.restored_tokens for name, prefixes in kept.items() if prefixes is not None}

    def _models(self) -> Sequence[ServedModel]:
        return self._place.served.models if self._place.served is not None else ()


def build(config: GenerationConfig, ranks: Ranks | None = None, path: Path | None = None) -> App:
    """The service for a configuration; nothing is loaded yet. Needs a running event loop."""
    return App(config, ranks, path)


def follow(config: GenerationConfig, ranks: Ranks) -> int:
    """Runs every rank but the first, until the first ends. Returns the exit status. Raises ConfigError."""
    causal, _ = engine_factory.load(config.model, config.engine, "model")
    try:
        parallel.follow(causal, ranks)
    except RuntimeError:
        _log.exception("the first rank is gone, or this one failed")
        return 1
    ranks.close()
    return 0
