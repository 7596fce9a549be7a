"""The generation service put together: load, warm up, serve, change models, drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc

from meshgate.v1 import generation_pb2, generation_pb2_grpc, models_pb2, models_pb2_grpc
from services.common.app_base import ServiceApp
from services.generation import parallel
from services.generation.config import GenerationConfig, ModelConfig
from services.generation.engine import engine_factory
from services.generation.engine.engine_factory import EngineFactory
from services.generation.parallel import Ranks
from services.generation.serving.listing import GenerationModelServicer
from services.generation.serving.refusal_counter import RefusalCounter
from services.generation.serving.served_model import ServedModel
from services.generation.serving.servicer import GenerationServicer
from services.models.model_table import ModelTable
from services.models.reloader import Reloader

_log = logging.getLogger(__name__)


class App(ServiceApp[GenerationConfig, ModelTable[ServedModel]]):
    """The generation service."""

    name = "generation"

    def __init__(self, config: GenerationConfig, ranks: Ranks | None = None, path: Path | None = None) -> None:
        """`ranks` hold the parts of the model, where it has several; this process is the first of them. `path` is the
        configuration's file: when it changes, the models change. A model in parts never changes.
        """
        super().__init__(config, path if ranks is None else None)
        self._refusals = RefusalCounter()
        loop = asyncio.get_running_loop()
        self._factory = EngineFactory(config, ranks, lambda: loop.call_soon_threadsafe(self.failed.set))
        self._reloader = Reloader[ModelConfig, ServedModel](self._factory.load)
        readings = self._gauges
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

    async def reload(self, config: GenerationConfig) -> None:
        """Serves the models of a configuration and no others. Raises ConfigError; the models in service then stay."""
        self._slot.served = ModelTable(await self._reloader.load(config.sections))

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        servicer = GenerationServicer(self._slot, self._refusals)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(GenerationModelServicer(self._slot), server)
        files = ((generation_pb2, "GenerationService"), (models_pb2, "ModelService"))
        return [file.DESCRIPTOR.services_by_name[name].full_name for file, name in files]

    async def _start_models(self) -> None:
        await self.reload(self._config)

    async def _stop_models(self, grace: float) -> None:
        await self._factory.stop(grace)

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
        return self._slot.served.models if self._slot.served is not None else ()


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
