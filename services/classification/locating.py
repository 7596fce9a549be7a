"""Tokens that know where in the text they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from services.pieces import Division, division
from services.tokens import Tokeniser, Tokens


@dataclass(frozen=True, slots=True)
class Located(Tokens):
    """Tokens that know where they come from."""

    offsets: list[tuple[int, int]] = field(default_factory=list)
    """Of each token, where it begins and ends in the text, in characters."""
    words: list[int | None] = field(default_factory=list)
    """Of each token, the number of its word; None for special tokens."""


class LocatingTokeniser(Tokeniser):
    """A tokeniser that keeps where tokens come from. It is given texts whole: of a piece it would not know where in the
    text it is.
    """

    def _division(self, backend: Any) -> Division:
        return Division(longest=division(backend).longest)

    def _read(self, whole: Any, *, cut: bool) -> Located:
        return Located(whole.ids, whole.type_ids, cut, whole.offsets, whole.word_ids)
