"""One of a list of texts, token by token, without a library: the texts that still fit say what may follow.

llguidance would make an automaton of them. With long texts that has more states than its bounds allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.generation.constraints.constraint import Constraint

if TYPE_CHECKING:
    from services.generation.text.detokenise import TokenBytes


class Spellings:
    """The tokens of a vocabulary by their bytes."""

    def __init__(self, tokens: TokenBytes, ends: frozenset[int]) -> None:
        """`ends` end an output."""
        self.size = len(tokens)
        self.ends = sorted(ends)
        self.tokens = tokens
        self._by_bytes = _by_bytes(tokens)
        self._lengths = sorted({len(each) for each in self._by_bytes})
        self.longest = max(self._lengths, default=0)

    def beginning(self, text: bytes) -> list[int]:
        """The tokens that `text` may begin with."""
        lengths = (length for length in self._lengths if length <= len(text))
        return [token for length in lengths for token in self._by_bytes.get(text[:length], ())]


def _by_bytes(tokens: TokenBytes) -> Mapping[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for token in range(len(tokens)):
        if token not in tokens.special and tokens.of(token):
            found.setdefault(tokens.of(token), []).append(token)
    return found


class Choices:
    """A list of texts to choose from."""

    def __init__(self, spellings: Spellings, constraint: Constraint) -> None:
        """Raises InvalidArgument where no token begins one of the texts."""
        self._spellings = spellings
        self._constraint = constraint
        self._texts = [text.encode() for text in constraint.texts]
        if not self.matcher().allowed().any():
            raise constraint.refuse("this model has no tokens for it")

    def matcher(self) -> ChoiceMatcher:
        """A new way through it, from its beginning."""
        return ChoiceMatcher(self._spellings, self._constraint, self._texts)


class ChoiceMatcher:
    """One candidate's way to one of the texts."""

    def __init__(self, spellings: Spellings, constraint: Constraint, texts: Sequence[bytes]) -> None:
        self._spellings = spellings
        self._constraint = constraint
        self._left = texts
        """What is left of each text that still fits."""
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether the output is whole, and nothing more can follow."""
        return self._ended or not any(self._left)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may follow, [vocabulary]."""
        made = np.zeros(self._spellings.size, np.bool_)
        if self._ended:
            return made
        for text in {left[: self._spellings.longest] for left in self._left}:
            made[self._spellings.beginning(text) if text else self._spellings.ends] = True
        return made

    def take(self, token: int) -> None:
        """Goes on by a token that was allowed. Raises InvalidArgument where it was not."""
        if token in self._spellings.ends and b"" in self._left:
            self._ended = True
            return
        piece = self._spellings.tokens.of(token)
        self._left = [left[len(piece) :] for left in self._left if piece and left.startswith(piece)]
        if not self._left:
            raise self._constraint.refuse("nothing can match it")
