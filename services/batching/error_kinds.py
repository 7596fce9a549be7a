"""The kinds of a model's errors: one input is bad, the batch is too large, or the model itself is broken."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto


class Fault(Enum):
    """The cause of an error."""

    INPUT = auto()
    """One input is bad. The batcher runs halves of the batch until the bad input fails alone."""
    MEMORY = auto()
    """The device ran out of memory. The batcher runs halves of the batch, and makes smaller batches from then on."""
    MODEL = auto()
    """The model or its device is broken. No batch can run any more."""


ErrorClassifier = Callable[[BaseException], Fault]


def classify(error: BaseException) -> Fault:
    """The cause of an error of a model in plain Python. A BaseException that is no Exception breaks the model."""
    if isinstance(error, MemoryError):
        return Fault.MEMORY
    return Fault.INPUT if isinstance(error, Exception) else Fault.MODEL
