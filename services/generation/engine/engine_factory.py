"""A model put on its engine: from a section of the configuration to what servicers use, and the end of it."""

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
    """What ends with an engine."""

    tokenising: PreparationQueue
    admission: Admission
    adapters: LoadedAdapters | None

    def close(self, why: Callable[[], MeshError] | None = None) -> None:
        """Ends their threads. Who waits for one is told `why`, or that the server stops."""
        self.tokenising.close(why)
        if self.adapters is not None:
            self.adapters.close(why)


class EngineFactory:
    """Starts engines, and ends each once its model is replaced and its last call is over."""

    def __init__(self, config: GenerationConfig, ranks: Ranks | None, failed: Callable[[], object]) -> None:
        """`ranks` are those that hold parts of the one model. `failed` is called where an engine can't go on, on any
        thread. Needs a running event loop.
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
        pace, row_limit = LatencyModel(self._engine.prefill_tokens), RowLimit(self._engine.max_batch)
        prefixes = self._prefixes(causal)
        adapting, loadable = adapters.open_adapters(settings.adapters, causal.module, key)
        scheduler = Scheduler(
            self._leader or causal,
            tokens,
            ends,
            self._engine.prefill_tokens,
            reserved_rows=self._engine.reserved_rows,
            prefill_latency=pace,
            row_limit=row_limit,
            adapter_layers=adapting,
            prefixes=prefixes,
        )
        engine = EngineThread(scheduler, on_death=self._failed, enter_thread=causal.enter_thread)
        grammars = _grammars(tokens, ends, tokenizer)
        entrance = Admission(self._engine.max_batch + self._engine.max_queue, self._engine.queue_tokens, pace)
        served = self._served(
            settings,
            causal,
            PromptReader(tokenizer),
            engine,
            entrance,
            row_limit,
            grammars,
            loadable,
            prefixes,
            default=key == "model",
        )
        self._running[engine] = _Companions(served.tokenising, entrance, loadable)
        engine.start()
        weakref.finalize(served.finaliser, self._over, engine).atexit = False
        failed = run_first_call(engine, self._engine.max_batch, self._engine.hang_seconds)
        if failed is not None:  # the engine ends with `served`
            raise ConfigError(f"{key}.source: {settings.source}: the first call of the model failed: {failed.message}")
        return served

    async def stop(self, grace: float) -> None:
        """Lets what runs finish for at most `grace` seconds, then fails it. Leaves no thread."""
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
        """Encoder-decoders keep none: what their encoder makes of a beginning depends on what follows it."""
        if not isinstance(causal, CausalModel):
            return None
        blocks = self._engine.prefix_cache_bytes // causal.block_bytes(BLOCK)
        return PrefixCache(self._leader or causal, blocks) if blocks else None

    def _served(
        self,
        settings: ModelConfig,
        causal: LoadedModel,
        prompts: PromptReader,
        engine: EngineThread,
        entrance: Admission,
        row_limit: RowLimit,
        grammars: Grammars | None,
        loadable: LoadedAdapters | None,
        prefixes: PrefixCache | None,
        *,
        default: bool,
    ) -> ServedModel:
        capacity = self._engine.max_batch + self._engine.max_queue
        most = min(settings.max_output_tokens, causal.longest_output)
        bounds = Limits(
            name=settings.name,
            aliases=settings.aliases,
            context=causal.context if causal.source is None else causal.source + most,
            source=causal.source,
            max_output_tokens=most,
            max_candidates=min(limits.CANDIDATES, capacity),
            vocabulary_size=causal.vocabulary_size,
        )
        card = model_card.card(bounds, causal, chat=prompts.chat, default=default, adapters=loadable is not None)
        tokenising = PreparationQueue(self._engine.queue_bytes, "tokenising")
        return ServedModel(
            engine,
            prompts,
            bounds,
            entrance,
            row_limit,
            tokenising,
            card,
            FinaliserToken(),
            grammars,
            loadable,
            prefixes,
        )

    def _over(self, engine: EngineThread) -> None:
        """The model is replaced and no call is left on it. Called wherever its last reference goes."""
        with contextlib.suppress(RuntimeError):  # the loop has closed, and the process ends
            self._loop.call_soon_threadsafe(self._end, engine)

    def _end(self, engine: EngineThread) -> None:
        beside = self._running.pop(engine, None)
        if beside is not None:
            beside.close()
            task = self._loop.create_task(engine.stop(0.0))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


def load(settings: ModelConfig, engine: EngineConfig, key: str) -> tuple[LoadedModel, PreTrainedTokenizerBase]:
    """A model that is warm, and its tokeniser. Raises ConfigError."""
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
