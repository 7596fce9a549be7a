"""Classifiers: token ids in, one raw score a label out. The named ones have labels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from services.crew import Crew
from services.encoder import Encoder, Pooling, padded
from services.tokens import Tokeniser, Tokens
from services.weights.opening import Weights

Scores = NDArray[np.float32]


class Runnable(Protocol):
    """What the model's thread runs: a row of numbers for each input."""

    @property
    def tokeniser(self) -> Tokeniser: ...
    @property
    def dtype(self) -> str: ...

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Float32 [labels], or [dimensions] of an encoder, for each input."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint says of itself."""

    labels: tuple[str, ...]
    pairs: bool = False
    """Whether it reads a second text."""
    typed: bool = False
    """Whether token types tell it which text a token is of; RoBERTa and its kin go by the separators."""
    several: bool = False
    """Whether its scores are independent, so that a sigmoid makes them and no softmax."""


class Classifier:
    """A named classifier: a module whose logits are one a label."""

    def __init__(
        self, module: Any, card: Card, tokeniser: Tokeniser, pad_id: int, weights: Weights | None = None
    ) -> None:
        self.card = card
        self.weights = weights or Weights()
        self.tokeniser = tokeniser
        parameter = next(module.parameters())
        self.dtype = str(parameter.dtype).removeprefix("torch.")
        self._module = module
        self._device = parameter.device
        self._pad_id = pad_id
        self._crew = Crew(torch.get_num_threads() if (self._device.type, self.dtype) == ("cpu", "bfloat16") else 0)

    @torch.inference_mode()
    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Logits, float32 [labels], for each input."""
        return list(self.logits(batch))

    def logits(self, batch: Sequence[Tokens]) -> Scores:
        """All that the module says of a batch, float32 [inputs, ...]."""
        inputs = padded(batch, self._pad_id, self._device, typed=self.card.typed)
        with self._crew.reading(inputs["input_ids"].numel()):
            output = self._module(**inputs)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits.float().cpu().numpy()


class ZeroShot:
    """An encoder whose vectors, of norm 1, are compared: a text with each label."""

    def __init__(self, encoder: Encoder, tokeniser: Tokeniser, scale: float) -> None:
        self.tokeniser = tokeniser
        self.dtype = encoder.dtype
        self.weights = encoder.weights
        self.scale = scale
        self._encoder = encoder

    def rows(self, batch: Sequence[Tokens]) -> list[Scores]:
        """Vectors, float32 [dimensions] of norm 1, for each input."""
        vectors = self._encoder.pooled(batch, [Pooling.MEAN] * len(batch))
        return list(torch.nn.functional.normalize(vectors).numpy())


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
