"""What an error of the model says: of one input, of the batch's size, or of the model itself."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto


class Fault(Enum):
    """Whose fault an error is."""

    INPUT = auto()
    """An input's: halves of the batch are tried, until the bad one fails alone."""
    MEMORY = auto()
    """The batch was too large for the device: its halves are run, and the next batches are smaller."""
    MODEL = auto()
    """The model's, or its device's: nothing can run any more."""


ErrorClassifier = Callable[[BaseException], Fault]


def classify(error: BaseException) -> Fault:
    """For models in plain Python. What is no Exception, such as SystemExit, was not meant for one input."""
    if isinstance(error, MemoryError):
        return Fault.MEMORY
    return Fault.INPUT if isinstance(error, Exception) else Fault.MODEL
