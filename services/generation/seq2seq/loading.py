"""From a checkpoint of an encoder-decoder to a model: what its configuration says of how outputs begin and end."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig

from meshgate.runtime.config import ConfigError
from services.generation.config import EngineConfig
from services.generation.seq2seq.decoders import DECODERS
from services.generation.seq2seq.model import Seq2SeqModel
from services.generation.text.eos import end_tokens


def bounded(config: PretrainedConfig, wanted: int, engine: EngineConfig, key: str) -> int:
    """How many tokens an input may have, and an output: what is wanted, bounded by training. Raises ConfigError for
    what is not served.
    """
    if config.model_type not in DECODERS or not getattr(config, "share_encoder_decoder_embeddings", True):
        kind = config.model_type
        served = "of encoder-decoders T5, mT5 and Marian with one vocabulary are"
        raise ConfigError(f"{key}.source: this {kind} model is not served: {served}")
    if engine.tensor_parallel > 1:
        raise ConfigError("engine.tensor_parallel: an encoder-decoder is not split")
    trained = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return min(wanted, trained or wanted)


def wrap(module: Any, rows: int, places: int, threads: int, key: str) -> Seq2SeqModel:
    """A loaded checkpoint as the step loop takes it. Raises ConfigError for one that does not say how to begin."""
    ends = end_tokens(module)
    never = [token for token in _never(module.generation_config) if token not in ends]
    return Seq2SeqModel(module, rows, places, _begin(module.generation_config, key), ends, never, threads)


def _begin(settings: Any, key: str) -> list[int]:
    """What the decoder is given before anything is made: its start, and a first token (a language) where the checkpoint
    forces one.
    """
    if not isinstance(settings.decoder_start_token_id, int):
        raise ConfigError(f"{key}.source: generation_config.json has no decoder_start_token_id")
    forced = settings.forced_bos_token_id
    return [settings.decoder_start_token_id, *([] if forced is None else [forced])]


def _never(settings: Any) -> list[int]:
    """Tokens that are never output: Marian's start, which it would otherwise make at times."""
    return [words[0] for words in settings.bad_words_ids or () if len(words) == 1]
