"""A loaded model as this process knows it: its tokeniser is here, and what multiplies is wherever the host has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from services.encoders.pooling import Pooling
from services.model_process import Hosted
from services.sentence_transformers.card import Card
from services.text.tokens import Tokeniser, Tokens

Vector = NDArray[np.float32]


class ModelInfo(NamedTuple):
    """The properties of a model."""

    tokeniser: Any
    """A `tokenizers.Tokenizer`."""
    max_tokens: int
    dimensions: int
    card: Card
    """The properties from the files beside it."""
    dtype: str
    device: str
    threads: int
    """Of a CPU; 0 on another device."""
    quantisation: str
    quality: float | None


class Input(NamedTuple):
    """One of a batch, as it travels to the model."""

    ids: list[int]
    types: list[int]
    pooling: str


class Runnable(Protocol):
    """The model as its thread runs it."""

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """One vector, float32 [dimensions], for each item; not normalised."""


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it is queued."""

    model: Runnable
    tokens: Tokens
    pooling: Pooling


class ModelProxy:
    """Ready to run."""

    def __init__(self, hosted: Hosted) -> None:
        self.facts: ModelInfo = hosted.facts
        self.tokeniser = Tokeniser(self.facts.tokeniser, self.facts.max_tokens)
        self._hosted = hosted

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """One vector, float32 [dimensions], for each item; not normalised."""
        return list(self._hosted.run([Input(each.tokens.ids, each.tokens.types, each.pooling.value) for each in batch]))


def sound(model: Runnable) -> Item:
    """An input that nothing is wrong with."""
    return Item(model, Tokens([1] * 4, [0] * 4), Pooling.MEAN)


def run(batch: Sequence[Item]) -> list[Vector]:
    """Runs a batch whose inputs may be for different models; results are index-aligned."""
    if all(item.model is batch[0].model for item in batch):
        return batch[0].model.run(batch)
    results: dict[int, Vector] = {}
    for model in {id(item.model): item.model for item in batch}.values():
        places = [place for place, item in enumerate(batch) if item.model is model]
        results.update(zip(places, model.run([batch[place] for place in places]), strict=True))
    return [results[place] for place in range(len(batch))]
