"""From labelled tokens to labelled parts of the text: tokens to words, words to spans.

A word has the label of its first token, for that is where those who fine-tune for it put the label (Devlin et al.,
"BERT", 2019, section 5.3). Labels may say where a span begins and goes on, as CoNLL's do: B-, I- and the like (IOB1,
IOB2, BILOU). Both of the first are read alike: a word with I- of the same kind goes on with what stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from meshgate.v1 import classification_pb2 as pb
from services.classification.model.offsets import Place

Scores = NDArray[np.float32]

_OUTSIDE: Final = "O"
_SCHEME: Final = re.compile(r"([BIESLU])-(.+)")
_GOES_ON: Final = frozenset("IEL")


class Piece(NamedTuple):
    """A part of a text."""

    label: str
    score: float
    start: int
    end: int


def found(
    scores: Scores, places: Sequence[Place], labels: Sequence[str], grouping: pb.TokenGrouping.ValueType
) -> list[pb.LabelledSpan]:
    """The spans of a text, from scores [tokens, labels]."""
    pieces = _GROUPINGS[grouping](scores, places, labels)
    return [pb.LabelledSpan(label=each.label, score=each.score, start=each.start, end=each.end) for each in pieces]


def tokens(scores: Scores, places: Sequence[Place], labels: Sequence[str]) -> Iterator[Piece]:
    """Each token but the special ones."""
    best = scores.argmax(1)
    for row, (word, (start, end)) in enumerate(places):
        if word is not None:
            yield Piece(labels[best[row]], float(scores[row, best[row]]), start, end)


def words(scores: Scores, places: Sequence[Place], labels: Sequence[str]) -> Iterator[Piece]:
    """Each word, with the label of its first token."""
    numbers = [word for word, _ in places if word is not None]
    pieces = zip(numbers, tokens(scores, places, labels), strict=True)
    for _, group in groupby(pieces, key=lambda each: each[0]):
        parts = [piece for _, piece in group]
        yield parts[0]._replace(end=parts[-1].end)


def spans(scores: Scores, places: Sequence[Place], labels: Sequence[str]) -> Iterator[Piece]:
    """Neighbouring words of one kind together; words of none are left out."""
    open_words: list[Piece] = []
    for word in words(scores, places, labels):
        mark, kind = _split(word.label)
        if open_words and (mark not in _GOES_ON or kind != open_words[0].label):
            yield _joined(open_words)
            open_words = []
        if kind != _OUTSIDE:
            open_words.append(word._replace(label=kind))
    if open_words:
        yield _joined(open_words)


def _split(label: str) -> tuple[str, str]:
    """A label's mark and kind. Without a mark it goes on with what is of its kind."""
    scheme = _SCHEME.fullmatch(label)
    return (scheme[1], scheme[2]) if scheme else ("I", label)


def _joined(parts: Sequence[Piece]) -> Piece:
    score = sum(part.score for part in parts) / len(parts)
    return Piece(parts[0].label, score, parts[0].start, parts[-1].end)


_GROUPINGS: Final[dict[int, Callable[[Scores, Sequence[Place], Sequence[str]], Iterator[Piece]]]] = {
    pb.TOKEN_GROUPING_UNSPECIFIED: spans,
    pb.TOKEN_GROUPING_SPANS: spans,
    pb.TOKEN_GROUPING_WORDS: words,
    pb.TOKEN_GROUPING_TOKENS: tokens,
}
