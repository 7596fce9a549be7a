"""Loaded classifiers as this process knows them: their tokenisers are here, and what multiplies is the host's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from services.classification.model.offsets import LocatingTokeniser
from services.model_process import Hosted
from services.text.tokens import Tokeniser, Tokens

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint says of itself."""

    labels: tuple[str, ...] = ()
    pairs: bool = False
    """Whether it reads a second text."""
    several: bool = False
    """Whether its scores are independent, so that a sigmoid makes them and no softmax."""
    raw: bool = False
    """Whether its scores are numbers that it was trained to give (regression), and no function makes them others."""
    judges: tuple[int, int] | None = None
    """Of a classifier of entailment that is used for zero-shot: its labels for entailment and for contradiction."""
    tags: bool = False
    """Whether it scores each token, and not the text."""
    prompt: str = ""
    """Of an encoder: what stands before each text."""


class ModelInfo(NamedTuple):
    """What there is to know of a model."""

    tokeniser: Any
    """A tokenizers.Tokenizer."""
    max_tokens: int
    card: Card
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


class Runnable(Protocol):
    """What the model's thread runs: a row of numbers for each input."""

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Float32 for each input: [labels], of a tagger [tokens, labels], of an encoder [dimensions] of norm 1."""


class ModelProxy:
    """Ready to run."""

    def __init__(self, hosted: Hosted) -> None:
        self.facts: ModelInfo = hosted.facts
        kind = LocatingTokeniser if self.facts.card.tags else Tokeniser
        self.tokeniser = kind(self.facts.tokeniser, self.facts.max_tokens)
        self._hosted = hosted

    @property
    def prompt(self) -> str:
        """What stands before each text."""
        return self.facts.card.prompt

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """See Runnable."""
        return list(self._hosted.run([Input(each.ids, each.types) for each in batch]))


class ClassifierProxy(ModelProxy):
    """A named classifier."""

    @property
    def card(self) -> Card:
        """What its checkpoint says of itself."""
        return self.facts.card


class ZeroShotProxy(ModelProxy):
    """What says how near a text is to each label: an encoder whose vectors, of norm 1, are compared, or a classifier of
    entailment, which is asked of each.
    """

    def __init__(self, hosted: Hosted, scale: float, *, midpoint: float = 0.0, hypothesis: str = "{}") -> None:
        """The first two are for an encoder, `hypothesis` is for a classifier."""
        super().__init__(hosted)
        self.scale = scale
        self.midpoint = midpoint
        self._hypothesis = hypothesis

    @property
    def entails(self) -> bool:
        """Whether it is a classifier of entailment."""
        return self.facts.card.judges is not None

    def statement(self, name: str, description: str) -> str:
        """What a text is held against: a label's description, or its name, for a classifier in a sentence."""
        return self.prompt + (description or (self._hypothesis.replace("{}", name) if self.entails else name))


@dataclass(frozen=True, slots=True)
class Item:
    """One input as it is queued."""

    model: Runnable
    tokens: Tokens


def run(batch: Sequence[Item]) -> list[Scores]:
    """Runs a batch whose inputs may be for different models; results are index-aligned."""
    results: dict[int, Scores] = {}
    for model in {id(item.model): item.model for item in batch}.values():
        places = [place for place, item in enumerate(batch) if item.model is model]
        rows = model.rows([batch[place].tokens for place in places])
        results.update(zip(places, rows, strict=True))
    return [results[place] for place in range(len(batch))]
