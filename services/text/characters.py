"""Tokenisers without a vocabulary: of bytes, as ByT5 has them, and of characters, as CANINE has them.

transformers has them in Python and says nothing of where a token stands. They do what a tokenizers.Tokenizer does, as
far as services.text.tokens asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any


@dataclass(slots=True)
class Encoding:
    """As tokenizers.Encoding."""

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    tokens: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def truncate(self, max_length: int, stride: int = 0, direction: str = "right") -> None:
        """Keeps `max_length` tokens."""
        kept = slice(max_length) if direction == "right" else slice(len(self.ids) - max_length, None)
        self.ids, self.type_ids, self.tokens = self.ids[kept], self.type_ids[kept], self.tokens[kept]
        self.offsets, self.word_ids = self.offsets[kept], self.word_ids[kept]


@dataclass(slots=True)
class Characters:
    """Stands in for a tokenizers.Tokenizer."""

    as_bytes: bool
    shift: int
    """What is added to a byte, or to a character's number."""
    before: tuple[int, ...]
    after: tuple[int, ...]
    """Special tokens around a text; those of a second text are `after` alone."""
    lower_case: bool = False
    encode_special_tokens: bool = True
    """As tokenizers has it; here no text has a marker in it."""
    pre_tokenizer: None = None

    def no_padding(self) -> None:
        """It has none."""

    def no_truncation(self) -> None:
        """It has none."""

    def encode_batch(self, input: Sequence[str], add_special_tokens: bool = True) -> list[Encoding]:
        """Without special tokens, whatever is asked: `post_process` adds them."""
        return [self._encode(text.lower() if self.lower_case else text) for text in input]

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """Around one text, or two."""
        return len(self.before) + len(self.after) * (2 if is_pair else 1)

    def post_process(self, encoding: Encoding, pair: Encoding | None = None) -> Encoding:
        """With special tokens, and the second text behind the first."""
        made = _special(self.before)
        for each in (encoding, pair):
            if each is not None:
                _add(made, each)
                _add(made, _special(self.after))
        return made

    def _encode(self, text: str) -> Encoding:
        places = [place for place, letter in enumerate(text) for _ in (letter.encode() if self.as_bytes else letter)]
        numbers = text.encode() if self.as_bytes else map(ord, text)
        words = _words(text)
        return Encoding(
            [number + self.shift for number in numbers],
            [0] * len(places),
            [(place, place + 1) for place in places],
            [words[place] for place in places],
            [text[place] for place in places],
        )


def backend(tokeniser: Any) -> Characters | None:
    """Of a tokeniser of transformers; None if it has a vocabulary."""
    kind = type(tokeniser).__name__
    if kind == "ByT5Tokenizer":
        return Characters(True, tokeniser.offset, (), (tokeniser.eos_token_id,))
    if kind == "CanineTokenizer":
        return Characters(False, 0, (tokeniser.cls_token_id,), (tokeniser.sep_token_id,))
    return None


def _words(text: str) -> list[int | None]:
    """Of each character the number of its word; none of a blank."""
    words: list[int | None] = []
    for number, (blank, letters) in enumerate(groupby(text, str.isspace)):
        words += [None if blank else number] * len(list(letters))
    return words


def _special(ids: Sequence[int]) -> Encoding:
    return Encoding([*ids], [0] * len(ids), [(0, 0)] * len(ids), [None] * len(ids), [""] * len(ids))


def _add(made: Encoding, more: Encoding) -> None:
    made.ids += more.ids
    made.type_ids += more.type_ids
    made.offsets += more.offsets
    made.word_ids += more.word_ids
    made.tokens += more.tokens
