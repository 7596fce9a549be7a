"""A causal language model on its device: reads prompts into the cache and advances rows by one token."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PretrainedConfig

from meshgate.runtime.config import ConfigError
from services.common.device import device_of, dtype_of
from services.cpu.thread_tuner import THREADS, ThreadTuner
from services.generation import seq2seq
from services.generation.config import EngineConfig, ModelConfig
from services.generation.engine.loaded_model import LoadedModel
from services.generation.model import checkpoint, context_bounds, decoder_kinds, gguf, llama_pass
from services.generation.model.device_memory import giving_back
from services.generation.model.kv_cache import SlotCache
from services.generation.model.llama_pass import LlamaPass
from services.generation.parallel import sharding
from services.generation.text.eos import end_tokens
from services.models import source
from services.models.starting import starting
from services.weights import completeness, load_weights, quality
from services.weights.load_weights import Weights, Where
from services.weights.quality import QualityProbe

_log = logging.getLogger(__name__)


class CausalModel:
    """Rows 0 to rows-1 are for sequences and their prompts; `spare` is one more. One thread uses it at a time."""

    whole = False
    source: int | None = None

    def __init__(self, module: Any, rows: int, context: int, threads: int = 0, weights: Weights | None = None) -> None:
        self.rows = rows
        self.context = context
        self.longest_output = context - 1
        self.spare = rows
        self.vocabulary_size = int(module.config.get_text_config().vocab_size)
        self.dtype = str(module.dtype).removeprefix("torch.")
        self.weights = weights or Weights()
        self.end_tokens = end_tokens(module)
        self._module = module
        self._device = module.device
        self.device = str(self._device.type)
        self._threads = threads
        self._crew = ThreadTuner(threads if (self.device, self.dtype) == ("cpu", "bfloat16") else 0)
        self._cache = SlotCache(rows, context)
        self._places = torch.arange(context, device=self._device)
        self._first_position = decoder_kinds.first_position(module.config.get_text_config())
        self._llama = LlamaPass(module) if llama_pass.fits(module) else None

    @property
    def module(self) -> Any:
        """The model itself, for what changes its layers between two steps."""
        return self._module

    def enter_thread(self) -> None:
        """Called once on the thread that will use the model: OpenMP counts threads for each calling thread."""
        if self._threads:
            torch.set_num_threads(self._threads)

    def warm_up(self) -> None:
        """Runs each kind of step once, so that no caller pays for what is allocated the first time."""
        self.prefill(self.spare, [0, 0], 0)
        for rows in {1, self.rows}:
            self.decode([0] * rows, [0] * rows)

    @torch.inference_mode()
    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Tensor:
        """Reads a piece of a prompt, positions from `start`, into a row. Returns the scores after its last token,
        float32 [vocabulary].
        """
        step = llama_pass.STEP if self._llama is not None else 1
        shown = self._cache.read_into(row, start, len(tokens), step)
        positions = self._places[start : start + len(tokens)]
        mask = self._places[:shown] <= positions[:, None]
        with self._crew.reading(len(tokens)):
            return self._forward(tokens, positions[None], mask[None, None])[0]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        """Adds tokens[r] to row r, which holds lengths[r] positions. Returns scores, float32 [rows, vocabulary]."""
        positions = torch.tensor(lengths, device=self._device)
        self._cache.advance(positions)
        mask = self._places[: max(lengths) + 1] <= positions[:, None]
        with self._crew.decoding(len(tokens)):
            return self._forward([[token] for token in tokens], positions[:, None], mask[:, None, None])

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Copies `length` positions of a row over another."""
        self._cache.copy(source, target, length)

    @torch.inference_mode()
    def wipe(self, row: int) -> None:
        """Forgets a row whose content is broken."""
        self._cache.wipe(row)

    def block_bytes(self, count: int) -> int:
        """What `count` positions take that are kept, once the model is warm."""
        return count * self._cache.position_bytes

    @torch.inference_mode()
    def store(self, slot: int, row: int, start: int, count: int) -> None:
        """Keeps `count` positions of a row, from `start`, for `recall`."""
        self._cache.store(slot, row, start, count)

    @torch.inference_mode()
    def restore(self, slot: int, row: int, start: int) -> None:
        """Puts what was kept into a row, from `start`."""
        self._cache.restore(slot, row, start)

    def forget(self) -> None:
        """Drops all that was kept."""
        self._cache.forget()

    @torch.inference_mode()
    def shrink(self, length: int) -> None:
        """Gives memory back after there was none: rows of at most `length` positions stay. What can't be, stays too."""
        with giving_back(self._device):
            self._cache.shrink(length)

    def _forward(self, tokens: Sequence[Any], positions: Tensor, mask: Tensor) -> Tensor:
        """`tokens` is a row of ids, or one id for each row; `mask` is true where a query may look."""
        ids = torch.tensor(tokens, device=self._device).view(positions.shape)
        if self._llama is not None and not self._llama.changed:
            return self._llama.logits(ids, positions, mask, self._cache)
        output = self._module(
            input_ids=ids,
            attention_mask=self._added(mask),
            position_ids=positions + self._first_position,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _added(self, mask: Tensor) -> Tensor:
        """A mask in the form that every way of attending takes: what is added to scores."""
        dtype = self._module.dtype
        added = torch.zeros(mask.shape, dtype=dtype, device=self._device)
        return added.masked_fill_(~mask, torch.finfo(dtype).min)


def load(model: ModelConfig, engine: EngineConfig, key: str = "model") -> tuple[LoadedModel, Path]:
    """Loads what the configuration names in its section `key`; returns the directory too. Raises ConfigError."""
    gguf.quieten()
    device = device_of(model.device, key)
    load_weights.check(model, key, device)
    where = checkpoint.locate(model, gguf.convert, key=key)
    with starting(key, str(where)), source.reading(key, where):
        config = AutoConfig.from_pretrained(where)
        if config.is_encoder_decoder:
            return _seq2seq(config, where, model, engine, key), where
        decoder_kinds.check(config, key, where)
        context = usable_context(config, model.max_context, key)
        module, weights = _open(model, engine, key, where, device, context)
    return CausalModel(module, engine.max_batch, context, _threads(engine), weights), where


def _open(
    model: ModelConfig, engine: EngineConfig, key: str, where: Path, device: torch.device, context: int
) -> tuple[Any, Weights]:
    load = _loader(AutoModelForCausalLM, where, model, key)
    if engine.tensor_parallel > 1:
        return sharding.shard(load(), engine.tensor_parallel), Weights()
    yardstick = QualityProbe(partial(_likeliest, where, context), quality.same, context)
    return load_weights.load_weights(model, key, Where(device, dtype_of(model.dtype, device)), load, [where], yardstick)


def _likeliest(where: Path, context: int, module: Any) -> Tensor:
    """The likeliest next token at each place of our texts, [tokens]."""
    tokenizer: Any = AutoTokenizer.from_pretrained(where)
    ids = tokenizer("\n".join(quality.texts()), return_tensors="pt").input_ids[:, :context]
    likeliest: Tensor = module(input_ids=ids.to(module.device)).logits[0].argmax(-1)
    return likeliest


def _seq2seq(config: PretrainedConfig, where: Path, model: ModelConfig, engine: EngineConfig, key: str) -> LoadedModel:
    if model.quantisation != "none":
        raise ConfigError(f"{key}.quantisation: encoder-decoders are served as they are")
    if model.adapters is not None:
        raise ConfigError(f"{key}.adapters: encoder-decoders have none")
    places = seq2seq.bounded(config, model.max_context, engine, key)
    module = (
        _loader(AutoModelForSeq2SeqLM, where, model, key, attn_implementation="sdpa")()
        .to(device_of(model.device, key))
        .eval()
    )
    return seq2seq.wrap(module, engine.max_batch, places, _threads(engine), key)


def _loader(kind: Any, where: Path, model: ModelConfig, key: str, **options: Any) -> Callable[..., Any]:
    """What makes the module, whole, in main memory."""
    dtype = dtype_of(model.dtype, device_of(model.device, key))
    safe = None if model.allow_pickle else True
    load = partial(kind.from_pretrained, where, dtype=dtype, use_safetensors=safe, **options)
    return completeness.complete(load, key, where)


def _threads(engine: EngineConfig) -> int:
    return engine.threads or THREADS


def usable_context(config: PretrainedConfig, wanted: int, key: str = "model") -> int:
    """The context we can serve: what is wanted, bounded by what the model is right for. Raises ConfigError for a model
    that is no plain causal transformer.
    """
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ("full_attention",))
    if not layers <= {"full_attention", "sliding_attention"}:
        raise ConfigError(f"{key}.source: only causal models with full or sliding attention are served")
    bound = context_bounds.bound(config, wanted)
    if bound.tokens < wanted:
        _log.info("the context is bounded", extra={"tokens": bound.tokens, "wanted": wanted, "by": bound.why})
    return bound.tokens
