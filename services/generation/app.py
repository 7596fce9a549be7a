"""The generation service put together, and its life: load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import grpc
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meshgate.runtime.config import ConfigError
from meshgate.v1 import generation_pb2, generation_pb2_grpc, models_pb2, models_pb2_grpc
from services.generation import limits, model, parallel
from services.generation.catalogue import ModelServicer
from services.generation.config import GenerationConfig
from services.generation.continuous import ContinuousEngine
from services.generation.detokenise import TokenBytes
from services.generation.limits import Limits
from services.generation.model import CausalModel
from services.generation.parallel import Leader, Ranks
from services.generation.permits import Permits
from services.generation.prompt import PromptReader
from services.generation.served import Place, Served
from services.generation.servicer import GenerationServicer
from services.generation.stepper import Stepper
from services.generation.tokenising import Tokenising

_log = logging.getLogger(__name__)

_COUNTING = 64
"""How many CountTokens calls may be in hand beside the calls that generate."""


class App:
    """Implements meshgate.runtime.server.Application."""

    name = "generation"

    def __init__(self, config: GenerationConfig, ranks: Ranks | None = None) -> None:
        """`ranks` are those that hold parts of the model, where it has several; this process is the first."""
        self._ranks = ranks
        self._leader: Leader | None = None
        self.failed = asyncio.Event()
        self._config = config
        self._place = Place()
        self._engine: ContinuousEngine | None = None

    async def start(self) -> None:
        """Loads the model and warms it up. Raises ConfigError when it can't be loaded."""
        causal, tokenizer = await asyncio.to_thread(_load, self._config)
        loop = asyncio.get_running_loop()
        if self._ranks is not None:
            self._leader = Leader(causal, self._ranks, lambda: loop.call_soon_threadsafe(self.failed.set))
        stepper = Stepper(
            self._leader or causal,
            TokenBytes(tokenizer, causal.vocabulary_size),
            causal.end_tokens,
            self._config.engine.prefill_tokens,
        )
        self._engine = ContinuousEngine(
            stepper,
            on_death=lambda: loop.call_soon_threadsafe(self.failed.set),
            enter_thread=causal.enter_thread,
        )
        self._engine.start()
        self._place.served = self._serve(causal, PromptReader(tokenizer), self._engine)
        _log.info("model loaded", extra={"dtype": causal.dtype, "context": causal.context, "rows": causal.rows})

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(GenerationServicer(self._place), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(self._place), server)
        files = ((generation_pb2, "GenerationService"), (models_pb2, "ModelService"))
        return [file.DESCRIPTOR.services_by_name[name].full_name for file, name in files]

    async def stop(self, grace: float) -> None:
        """Lets what runs finish for at most `grace` seconds, then fails it."""
        if self._engine is not None:
            await self._engine.stop(grace)
        if self._leader is not None:
            await asyncio.to_thread(self._leader.stop)
        if self._place.served is not None:
            self._place.served.tokenising.close()

    def _serve(self, causal: CausalModel, prompts: PromptReader, engine: ContinuousEngine) -> Served:
        settings, capacity = self._config.model, self._config.engine.max_batch + self._config.engine.max_queue
        bounds = Limits(
            name=settings.name,
            aliases=settings.aliases,
            context=causal.context,
            max_output_tokens=min(settings.max_output_tokens, causal.context - 1),
            max_candidates=min(limits.CANDIDATES, capacity),
            vocabulary_size=causal.vocabulary_size,
        )
        tokenising = Tokenising(capacity + _COUNTING)
        return Served(engine, prompts, bounds, Permits(capacity), tokenising, causal.dtype)


def build(config: GenerationConfig, ranks: Ranks | None = None) -> App:
    """The service for a configuration; nothing is loaded yet. Needs a running event loop."""
    return App(config, ranks)


def follow(config: GenerationConfig, ranks: Ranks) -> int:
    """What every rank but the first does until that ends. Returns the exit status. Raises ConfigError."""
    causal, _ = _load(config)
    try:
        parallel.follow(causal, ranks)
    except RuntimeError:
        _log.exception("the first rank is gone, or this one failed")
        return 1
    ranks.close()
    return 0


def _load(config: GenerationConfig) -> tuple[CausalModel, PreTrainedTokenizerBase]:
    causal, where = model.load(config.model, config.engine)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.source: {config.model.source}: {error}") from error
    causal.warm_up()
    return causal, tokenizer
