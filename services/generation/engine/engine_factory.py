"""The factory of engines: from a section of the configuration to a served model, and to the end of its engine."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from meshgate.errors import MeshError
from meshgate.runtime.config import ConfigError
from services.batching.latency_model import LatencyModel
from services.generation import adapters
from services.generation.adapters import LoadedAdapters
from services.generation.config import EngineConfig, GenerationConfig, ModelConfig
from services.generation.constraints import Grammars
from services.generation.engine.engine_thread import EngineThread
from services.generation.engine.hang_watchdog import HangWatchdog
from services.generation.engine.loaded_model import LoadedModel
from services.generation.engine.warmup import run_first_call
from services.generation.model import causal_model, self_check
from services.generation.model.causal_model import CausalModel
from services.generation.model.prefix_cache import BLOCK, PrefixCache
from services.generation.parallel import Leader, Ranks
from services.generation.scheduler.row_limit import RowLimit
from services.generation.scheduler.scheduler import Scheduler
from services.generation.serving import limits, model_card
from services.generation.serving.admission import Admission
from services.generation.serving.limits import Limits
from services.generation.serving.served_model import FinaliserToken, ServedModel
from services.generation.text import tokeniser_check
from services.generation.text.detokenise import TokenBytes
from services.generation.text.eos import all_end_tokens
from services.generation.text.prompt import PromptReader
from services.models import vocabulary
from services.models.starting import starting
from services.text.preparing import PreparationQueue


class _Companions(NamedTuple):
    """The parts that end with an engine."""

    tokenising: PreparationQueue
    admission: Admission
    adapters: LoadedAdapters | None

    def close(self, why: Callable[[], MeshError] | None = None) -> None:
        """Ends their threads. Calls that wait for one fail with `why`, or DRAINING."""
        self.tokenising.close(why)
        if self.adapters is not None:
            self.adapters.close(why)


class EngineFactory:
    """Starts engines, and ends each once its model is replaced and its last call is over."""

    def __init__(self, config: GenerationConfig, ranks: Ranks | None, failed: Callable[[], object]) -> None:
        """`ranks` hold the parts of the one model, if it has parts. `failed` is called, on any thread, when an engine
        fails. Needs a running event loop.
        """
        self._engine: EngineConfig = config.engine
        self._ranks = ranks
        self._failed = failed
        self._leader: Leader | None = None
        self._loop = asyncio.get_running_loop()
        self._running: dict[EngineThread, _Companions] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._watchdog = HangWatchdog(lambda: tuple(self._running), config.engine.hang_seconds, failed)

    def load(self, settings: ModelConfig, key: str) -> ServedModel:
        """Loads a model, warms it up and starts its engine; for a thread of its own. Raises ConfigError."""
        with starting(key, settings.source):
            return self._loaded(settings, key)

    def _loaded(self, settings: ModelConfig, key: str) -> ServedModel:
        causal, tokenizer = load(settings, self._engine, key)
        if self._ranks is not None:
            self._leader = Leader(causal, self._ranks, self._failed)
        ends = all_end_tokens(causal.end_tokens, tokenizer, causal.vocabulary_size)
        tokens = TokenBytes(tokenizer, causal.vocabulary_size, ends, fresh=causal.source is not None)
        tokeniser_check.check(tokenizer, tokens, key, settings.source)
        latency, row_limit = LatencyModel(self._engine.prefill_tokens), RowLimit(self._engine.max_batch)
        prefixes = self._prefixes(causal)
        adapter_layers, loaded_adapters = adapters.open_adapters(settings.adapters, causal.module, key)
        scheduler = Scheduler(
            self._leader or causal,
            tokens,
            ends,
            self._engine.prefill_tokens,
            reserved_rows=self._engine.reserved_rows,
            prefill_latency=latency,
            row_limit=row_limit,
            adapter_layers=adapter_layers,
            prefixes=prefixes,
        )
        engine = EngineThread(scheduler, on_death=self._failed, enter_thread=causal.enter_thread)
        bounds, prompts = self._limits(settings, causal), PromptReader(tokenizer)
        served = ServedModel(
            engine=engine,
            prompts=prompts,
            limits=bounds,
            admission=Admission(self._capacity, self._engine.queue_tokens, latency),
            row_limit=row_limit,
            tokenising=PreparationQueue(self._engine.queue_bytes, "tokenising"),
            card=model_card.card(
                bounds, causal, chat=prompts.chat, default=key == "model", adapters=loaded_adapters is not None
            ),
            finaliser=FinaliserToken(),
            grammars=_grammars(tokens, ends, tokenizer),
            adapters=loaded_adapters,
            prefixes=prefixes,
        )
        return self._started(served, engine, settings, key)

    def _started(self, served: ServedModel, engine: EngineThread, settings: ModelConfig, key: str) -> ServedModel:
        """Starts the model's engine and runs a first call on it. Raises ConfigError where that fails."""
        self._running[engine] = _Companions(served.tokenising, served.admission, served.adapters)
        engine.start()
        weakref.finalize(served.finaliser, self._over, engine).atexit = False
        failed = run_first_call(engine, self._engine.max_batch, self._engine.hang_seconds)
        if failed is not None:  # the engine ends with `served`
            raise ConfigError(f"{key}.source: {settings.source}: the first call of the model failed: {failed.message}")
        return served

    async def stop(self, grace: float) -> None:
        """Lets running calls finish for at most `grace` seconds, then fails them. Leaves no thread."""
        self._watchdog.stop()
        for engine, beside in self._running.items():
            beside.admission.close(engine.refusal)
        await asyncio.gather(*(engine.stop(grace) for engine in tuple(self._running)), *self._ending)
        if self._leader is not None:
            await asyncio.to_thread(self._leader.stop)
        for engine, beside in self._running.items():
            beside.close(engine.refusal)
        self._running.clear()

    def _prefixes(self, causal: LoadedModel) -> PrefixCache | None:
        """The prefix cache. None for an encoder-decoder: its states of a prefix depend on the rest of the text."""
        if not isinstance(causal, CausalModel):
            return None
        blocks = self._engine.prefix_cache_bytes // causal.block_bytes(BLOCK)
        return PrefixCache(self._leader or causal, blocks) if blocks else None

    def _limits(self, settings: ModelConfig, causal: LoadedModel) -> Limits:
        most = min(settings.max_output_tokens, causal.longest_output)
        return Limits(
            name=settings.name,
            aliases=settings.aliases,
            context=causal.context if causal.source is None else causal.source + most,
            source=causal.source,
            max_output_tokens=most,
            max_candidates=min(limits.CANDIDATES, self._capacity),
            vocabulary_size=causal.vocabulary_size,
        )

    @property
    def _capacity(self) -> int:
        """Candidates that one model runs and queues together."""
        return self._engine.max_batch + self._engine.max_queue

    def _over(self, engine: EngineThread) -> None:
        """Ends a replaced model's engine once no call is left on it, on the thread that drops the last reference."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self._end, engine)

    def _end(self, engine: EngineThread) -> None:
        beside = self._running.pop(engine, None)
        if beside is not None:
            beside.close()
            task = self._loop.create_task(engine.stop(0.0))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def load(settings: ModelConfig, engine: EngineConfig, key: str) -> tuple[LoadedModel, PreTrainedTokenizerBase]:
    """A warm model and its tokeniser. Raises ConfigError."""
    causal, where = causal_model.load(settings, engine, key)
    tokenizer: PreTrainedTokenizerBase = vocabulary.load(key, where)
    vocabulary.check(tokenizer, causal.vocabulary_size, key, where)
    with starting(key, f"{where}: the first steps of a {causal.module.config.model_type} model"):
        if isinstance(causal, CausalModel):
            self_check.check(causal, key, where)
        causal.warm_up()
    return causal, tokenizer


def _grammars(tokens: TokenBytes, ends: frozenset[int], tokenizer: PreTrainedTokenizerBase) -> Grammars | None:
    def encode(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return found

    return Grammars(tokens, ends, encode) if ends else None
