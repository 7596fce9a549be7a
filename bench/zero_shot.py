"""How well zero-shot classification does: `python -m bench.zero_shot`, on the support tickets of examples/.

Run in process, with the model and the arithmetic of the service. The descriptions below were written once, from the
labels' names, and not tuned to the tickets.
"""

from __future__ import annotations

import asyncio
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
from meshgate.v1 import classification_pb2 as pb
from services.classification.config import EngineConfig, ZeroShotConfig
from services.classification.model.classifier import ZeroShot
from services.classification.model.loading import load_zero_shot
from services.classification.model.scores import scored
from services.text.tokens import Cut

TICKETS: Final = Path(__file__).parent.parent / "examples" / "ticket_intents.csv"
SCALES: Final = (5.0, 10.0, 20.0, 40.0, 80.0)
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "refund": "The customer wants their money back.",
    "billing": "A question about an invoice, a charge or a payment.",
    "delivery": "A parcel is late, lost or was brought to the wrong place.",
    "login": "The customer can't log in or forgot a password.",
    "cancel": "The customer wants to end a subscription or close an account.",
    "bug": "Something in the software does not work or crashes.",
    "feature": "A wish for something that the product can't do yet.",
    "change_order": "The customer wants to change an order that was placed.",
}

Matrix = NDArray[np.float32]


class Wording(NamedTuple):
    """How labels are put to the model."""

    name: str
    texts: Mapping[str, str]


class Row(NamedTuple):
    """What one wording gave."""

    wording: str
    accuracy: float
    log_loss: Mapping[float, float]
    """Scale to the mean of -log(score of the right label), in nats; ln 8 = 2.08 is knowing nothing."""


WORDINGS: Final = (
    Wording("the name alone", {label: label for label in DESCRIPTIONS}),
    Wording("the name in words", {label: label.replace("_", " ") for label in DESCRIPTIONS}),
    Wording("a template", {label: f"This message is about: {label.replace('_', ' ')}." for label in DESCRIPTIONS}),
    Wording("a description", DESCRIPTIONS),
)


def tickets() -> list[tuple[str, str]]:
    """Texts and their labels."""
    with TICKETS.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def vectors(model: ZeroShot, texts: Sequence[str]) -> Matrix:
    """Float32 [texts, dimensions] of norm 1."""
    return np.stack(model.rows(asyncio.run(model.tokeniser.encode(texts, Cut.REFUSE, "texts"))))


def measured(model: ZeroShot, wording: Wording, texts: Matrix, right: NDArray[np.int64]) -> Row:
    """Accuracy and log loss of one wording."""
    cosines = texts @ vectors(model, list(wording.texts.values())).T
    accuracy = float((cosines.argmax(1) == right).mean())
    return Row(wording.name, accuracy, {scale: _log_loss(cosines, right, scale) for scale in SCALES})


def _log_loss(cosines: Matrix, right: NDArray[np.int64], scale: float) -> float:
    scores = scored(np.float32(scale) * cosines, pb.SCORE_FUNCTION_SOFTMAX)
    return float(-np.log(scores[np.arange(len(right)), right]).mean())


def evaluate(wordings: Sequence[Wording] = WORDINGS) -> list[Row]:
    """All wordings with the model that ships."""
    model: Any = load_zero_shot(ZeroShotConfig.model_validate({}), EngineConfig.model_validate({}))
    labelled = tickets()
    texts = vectors(model, [text for text, _ in labelled])
    order = list(DESCRIPTIONS)
    right = np.array([order.index(label) for _, label in labelled])
    return [measured(model, wording, texts, right) for wording in wordings]


def main() -> None:
    """Writes a Markdown table."""
    columns = ["labels as", "right", *(f"log loss, scale {scale:g}" for scale in SCALES)]
    lines = [columns, ["---"] * len(columns), *map(_cells, evaluate())]
    sys.stdout.writelines(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row) -> list[str]:
    return [row.wording, f"{row.accuracy:.1%}", *(f"{row.log_loss[scale]:.2f}" for scale in SCALES)]


if __name__ == "__main__":
    main()
