"""Tokens that know where in the text they come from."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Final

from services.text.pieces import Division, division
from services.text.tokens import Tokeniser, Tokens

Place = tuple[int | None, tuple[int, int]]
"""Of a token: the number of its word, None for a special one, and where it stands."""

_SPLITS: Final = "BertPreTokenizer"
"""The part of a tokeniser that ends words at punctuation and at Chinese characters; others do at blanks."""
_BLANKS: Final = "\u2581\u0120 "
"""What SentencePiece and GPT-2 write for a blank, and a blank."""
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Letters of Thai, Lao, Tibetan, Burmese, Khmer, Japanese and Chinese."""


@dataclass(frozen=True, slots=True)
class Located(Tokens):
    """Tokens that know where they come from."""

    offsets: list[tuple[int, int]] = field(default_factory=list)
    """Of each token, where it begins and ends in the text, in characters."""
    words: list[int | None] = field(default_factory=list)
    """Of each token, the number of its word; None for special tokens."""
    fine: bool = True
    """Whether words end at punctuation and Chinese characters already."""


class LocatingTokeniser(Tokeniser):
    """A tokeniser that keeps where tokens come from. It is given texts whole: of a piece it would not know where in the
    text it is.
    """

    def _division(self, backend: Any) -> Division:
        return Division(longest=division(backend).longest)

    def __init__(self, backend: Any, max_tokens: int) -> None:
        super().__init__(backend, max_tokens)
        self._fine = _SPLITS in repr(getattr(backend, "pre_tokenizer", None))

    def _read(self, whole: Any, *, cut: bool) -> Located:
        words = whole.word_ids
        if not self._fine:
            words = [None if _blank(piece) else word for piece, word in zip(whole.tokens, words, strict=True)]
        return Located(whole.ids, whole.type_ids, cut, whole.offsets, words, self._fine)


def places(tokens: Located, text: str) -> list[Place]:
    """Of each token the number of its word and where it stands, without blanks around it; no word where nothing is left
    of it. Where the tokeniser knows blanks alone, words end at punctuation too, and are as long as a token in scripts
    that have no blanks.
    """
    made: list[Place] = []
    number, before, end = -1, None, 0
    for word, (start, stop) in zip(tokens.words, tokens.offsets, strict=True):
        start, stop = _trimmed(text, start, stop)
        if word is None or start == stop:
            made.append((None, (start, stop)))
            continue
        apart = not tokens.fine and start >= end and (_alone(text[start]) or (start > 0 and _alone(text[start - 1])))
        number += word != before or apart
        before, end = word, stop
        made.append((number, (start, stop)))
    return made


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    while start < stop and text[start].isspace():
        start += 1
    while stop > start and text[stop - 1].isspace():
        stop -= 1
    return start, stop


def _blank(piece: str) -> bool:
    """Whether a token is a blank, which stands before a word and is none."""
    return not piece.strip(_BLANKS)


def _alone(letter: str) -> bool:
    """Whether it ends a word that stands before it, and is one: punctuation, as BERT has it, and what is written
    without blanks.
    """
    if letter.isascii():
        return not letter.isalnum() and not letter.isspace()
    return unicodedata.category(letter).startswith("P") or _UNSPACED.match(letter) is not None
