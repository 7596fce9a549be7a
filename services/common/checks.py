"""Checks of public fields that the encoder services share. Each names the field and its range."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from meshgate.errors import FieldViolation, InvalidArgument, NotFound
from meshgate.numerals import written
from meshgate.v1 import priority_pb2

TEXT_BYTES: Final = 1_048_576
NAME_BYTES: Final = 256


def in_range(field: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raises InvalidArgument unless low <= value <= high; so put, a NaN is out of range."""
    if not low <= value <= high:
        raise InvalidArgument.of(field, f"must be from {written(low)} to {written(high)} {unit}".rstrip())


def size(field: str, text: str, low: int, high: int) -> None:
    """Raises InvalidArgument unless `text` has low to high bytes of UTF-8."""
    in_range(field, len(text.encode()), low, high, "bytes")


def texts(field: str, values: Sequence[str], most: int) -> None:
    """Raises InvalidArgument unless there are 1 to `most` texts, none of them empty or too long."""
    in_range(field, len(values), 1, most, "inputs")
    for index, text in enumerate(values):
        size(f"{field}[{index}]", text, 1, TEXT_BYTES)


def known(field: str, value: int, enum: Any) -> None:
    """Raises InvalidArgument for a number of a protobuf enum that this version does not know."""
    if value not in _numbers(enum):
        raise InvalidArgument.of(field, "not a value that this version knows")


@cache
def _numbers(enum: Any) -> frozenset[int]:
    """The list would be made anew for each call."""
    return frozenset(enum.values())


def no_model(name: str) -> NotFound:
    """The error for an unknown model name."""
    return NotFound(f"no such model: {_shown(name)}", reason="MODEL_NOT_FOUND")


def no_classifier(name: str) -> NotFound:
    """The same of a tenant's own classifiers."""
    return NotFound(f"no such classifier: {_shown(name)}", reason="MODEL_NOT_FOUND")


def _shown(name: str) -> str:
    """A name that a caller gave, as it can be shown anywhere: short, and without anything that a terminal obeys."""
    return repr(name if len(name) <= NAME_BYTES else f"{name[:NAME_BYTES]}...")


class TokenBudget:
    """The tokens that were reserved for a call. A stream's requests, several at once, take from one."""

    def __init__(self, token_cap: int | None) -> None:
        """`token_cap` None is no bound. Belongs to one event loop."""
        self.taken = 0
        self._cap = token_cap

    def take(self, tokens: int) -> None:
        """Before the work: raises InvalidArgument (TOKEN_CAP_EXCEEDED) when less than that is left."""
        if self._cap is not None and tokens > self._cap - self.taken:
            most = f"{tokens} tokens are too many: {self._cap - self.taken} of those reserved are left"
            raise InvalidArgument.of("inputs", most, reason="TOKEN_CAP_EXCEEDED")
        self.taken += tokens


def within(prefix: str, error: InvalidArgument) -> InvalidArgument:
    """The same violations, of fields of a message inside the request."""
    violations = tuple(FieldViolation(f"{prefix}.{each.field}", each.description) for each in error.violations)
    return InvalidArgument(f"{prefix}.{error.message}", reason=error.reason, violations=violations)


def is_batch(priority: priority_pb2.Priority.ValueType, *, bulk: bool) -> bool:
    """Whether a call lets others go first. Raises InvalidArgument."""
    known("options.priority", priority, priority_pb2.Priority)
    if priority == priority_pb2.PRIORITY_UNSPECIFIED:
        return bulk
    return priority == priority_pb2.PRIORITY_BATCH
