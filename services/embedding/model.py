"""A sentence-embedding model: an encoder, its own pooling and prompts, and its tokeniser, from one directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer

from meshgate.runtime.config import ConfigError
from services import device, packages
from services.embedding.config import ModelConfig
from services.encoder import Encoder, Pooling, load_encoder
from services.tokens import Tokeniser, Tokens

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it is queued."""

    tokens: Tokens
    pooling: Pooling


@dataclass(frozen=True)
class Card:
    """What sentence-transformers' files say of a model; the usual where there are none."""

    pooling: Pooling = Pooling.MEAN
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)


class EmbeddingModel:
    """Ready to run."""

    def __init__(self, encoder: Encoder, tokeniser: Tokeniser, card: Card) -> None:
        self.encoder = encoder
        self.tokeniser = tokeniser
        self.card = card

    @property
    def sound(self) -> Item:
        """An input that nothing is wrong with."""
        return Item(Tokens([1] * 4, [0] * 4), Pooling.MEAN)

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """One vector, float32 [dimensions], for each item; not normalised."""
        vectors = self.encoder.pooled([item.tokens for item in batch], [item.pooling for item in batch])
        return list(vectors.numpy())

    def warm_up(self) -> None:
        """Runs a short and a long input, so that no caller pays for first-time allocations."""
        for length in (4, self.tokeniser.max_tokens):
            self.run([Item(Tokens([1] * length, [0] * length), Pooling.MEAN)])


def load(config: ModelConfig, threads: int) -> EmbeddingModel:
    """Loads what the configuration names. Raises ConfigError."""
    torch.set_num_threads(threads or torch.get_num_threads())
    source = packages.locate(config.source)
    where = device.device_of(config.device)
    try:
        tokeniser: Any = AutoTokenizer.from_pretrained(source)
        positions = int(getattr(AutoConfig.from_pretrained(source), "max_position_embeddings", config.max_input_tokens))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.source: {source}: {error}") from error
    card = read_card(Path(source))
    bounds = (config.max_input_tokens, positions, card.max_tokens or config.max_input_tokens)
    encoder = load_encoder(source, where, device.dtype_of(config.dtype, where), tokeniser.pad_token_id or 0)
    return EmbeddingModel(encoder, Tokeniser(tokeniser.backend_tokenizer, min(bounds)), card)


def read_card(folder: Path) -> Card:
    """Reads what sentence-transformers keeps beside a model. Raises ConfigError for a pooling that we don't have."""
    pooling = _read(folder / "1_Pooling" / "config.json")
    return Card(
        pooling=_pooling(pooling),
        max_tokens=_read(folder / "sentence_bert_config.json").get("max_seq_length"),
        prompts=_read(folder / "config_sentence_transformers.json").get("prompts") or {},
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _pooling(config: Mapping[str, Any]) -> Pooling:
    modes = {
        "pooling_mode_mean_tokens": Pooling.MEAN,
        "pooling_mode_cls_token": Pooling.CLS,
        "pooling_mode_lasttoken": Pooling.LAST,
    }
    asked = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if not asked:
        return Pooling.MEAN
    if len(asked) != 1 or asked[0] not in modes:
        raise ConfigError(f"model.source: the model's pooling is not served: {', '.join(asked)}")
    return modes[asked[0]]
