"""What the leader tells the other ranks: a step and what it is given, as integers, and nothing that is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

STEPS: Final = ("prefill", "decode", "copy", "wipe", "shrink", "store", "restore", "forget")
"""Methods of the model, by their number on the wire."""
STOP: Final = len(STEPS)

Argument = int | Sequence[int]
_SCALAR: Final = -1
"""In the place of a list's length: no list but a number."""


def encode(step: int, arguments: Sequence[Argument]) -> list[int]:
    """The words of a command: its step, and of each argument its length and its numbers."""
    words = [step]
    for argument in arguments:
        words += [_SCALAR, argument] if isinstance(argument, int) else [len(argument), *argument]
    return words


def decode(words: Sequence[int]) -> tuple[int, list[Argument]]:
    """The step and the arguments. Raises ValueError for words that `encode` does not write."""
    if not words or not 0 <= words[0] <= STOP:
        raise ValueError("no such step")
    return words[0], list(_arguments(words))


def _arguments(words: Sequence[int]) -> Iterator[Argument]:
    at = 1
    while at < len(words):
        size, start = words[at], at + 1
        at = start + (1 if size == _SCALAR else size)
        if size < _SCALAR or at > len(words):
            raise ValueError("an argument is cut short")
        yield words[start] if size == _SCALAR else list(words[start:at])
