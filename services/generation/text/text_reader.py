"""The texts of prompts to token ids, in steps, and no further than is needed (see services.text.pieces)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from services.text import pieces
from services.text.pieces import PIECE, Division
from services.text.preparing import Steps


class TokenisedInput(NamedTuple):
    """A text as it was read."""

    ids: list[int]
    """Empty where they were only counted."""
    tokens: int
    whole: bool = True
    """Whether that was all: it is left off where it is known to be too long."""


class Encode(Protocol):
    """Makes token ids of a text."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class SpecialTokens(NamedTuple):
    """What a tokeniser puts around each text."""

    before: list[int]
    after: list[int]
    once: bool = False
    """Whether it puts nothing after a text that ends so already."""


class TextReader:
    """Reads texts of one model."""

    def __init__(self, encode: Encode, division: Division, around: SpecialTokens | None = None) -> None:
        """Without knowing what is `around` them, texts to which special tokens belong are read whole."""
        self._encode = encode
        self._division = division
        self._around = around

    def steps(self, text: str, most: int | None, *, special: bool, keep: bool = True) -> Steps[TokenisedInput]:
        """The tokens of a text, with what the model's texts begin and end with where they are `special`. Once there are
        more than `most` it is left off. They are only counted where nobody will `keep` them.
        """
        divided = self._division if self._around or not special else Division(longest=self._division.longest)
        if len(text) <= PIECE:
            ids = self._encode(text, add_special_tokens=special)
            return TokenisedInput(ids, len(ids))
        least = divided.least(text)
        if most is not None and least > most:
            return TokenisedInput([], least, whole=False)
        around = self._around if special else SpecialTokens([], [])
        parts = divided.pieces(text)
        return (yield from self._joined(parts, around, most, keep=keep))

    def _joined(
        self, parts: Iterator[str], around: SpecialTokens | None, most: int | None, *, keep: bool
    ) -> Steps[TokenisedInput]:
        before, after, once = around or SpecialTokens([], [])
        ids, found, count = list(before), list[int](), len(before)
        for part in parts:
            yield len(part)
            found = self._encode(part, add_special_tokens=around is None)
            count += len(found)
            least = count if once else count + len(after)
            if most is not None and least > most:
                return TokenisedInput([], least, whole=False)
            if keep:
                ids += found
        if once and found[-len(after) :] == after:
            after = []
        return TokenisedInput(ids + after if keep else [], count + len(after))


def division(tokenizer: Any) -> Division:
    """How a tokeniser's texts may be divided."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return pieces.division(backend)
    if pieces.has_bytes(tokenizer):
        return pieces.of_bytes(str(token) for token in tokenizer.added_tokens_decoder.values())
    return Division()


def around(tokenizer: Any) -> SpecialTokens | None:
    """What a tokeniser puts around each text; None where that can't be seen."""
    plain: Sequence[int] = tokenizer.encode("a", add_special_tokens=False)
    found: list[int] = tokenizer.encode("a", add_special_tokens=True)
    python = getattr(tokenizer, "backend_tokenizer", None) is None
    for start in range(len(found) - len(plain) + 1):
        if plain and found[start : start + len(plain)] == list(plain):
            after = found[start + len(plain) :]
            return SpecialTokens(found[:start], after, once=python and bool(after))
    return None
