"""From text to token ids, cut or refused where there are too many. Runs beside the model's thread, in Rust."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from meshgate.errors import InvalidArgument

_FEW: Final = 1000
"""Characters that are read at once, about a fifth of a millisecond: the way to a thread and back takes half of that."""
_EACH: Final = 50
"""Characters that a text counts for besides its own."""


class Cut(Enum):
    """What to do with a text that is too long."""

    REFUSE = "error"
    START = "left"
    END = "right"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text, or a pair of them, as a model reads it."""

    ids: list[int]
    types: list[int]
    """0 for the first text, 1 for the second."""
    cut: bool = False

    @property
    def length(self) -> int:
        """How many, special tokens included."""
        return len(self.ids)


class Backend(Protocol):
    """The part of tokenizers.Tokenizer that is used."""

    def encode_batch(self, input: Any, add_special_tokens: bool = True) -> list[Any]: ...
    def post_process(self, encoding: Any, pair: Any = None) -> Any: ...
    def num_special_tokens_to_add(self, is_pair: bool) -> int: ...


class Tokeniser:
    """A model's tokeniser. Safe to use from several threads: it keeps no settings between calls."""

    def __init__(self, backend: Any, max_tokens: int) -> None:
        """`backend` is a tokenizers.Tokenizer; its own padding and truncation are switched off."""
        backend.no_padding()
        backend.no_truncation()
        self.backend: Backend = backend
        self.max_tokens = max_tokens

    async def encode(self, texts: Sequence[str], cut: Cut, field: str) -> list[Tokens]:
        """Token ids of texts. Raises InvalidArgument (INPUT_TOO_LONG), naming `field` and the index."""
        if sum(map(len, texts)) + _EACH * len(texts) <= _FEW:
            return self._encode(texts, None, cut, field)
        return await asyncio.to_thread(self._encode, texts, None, cut, field)

    async def encode_pairs(self, texts: Sequence[str], pairs: Sequence[str], cut: Cut, field: str) -> list[Tokens]:
        """Token ids of texts with a second one each; an empty one is none."""
        return await asyncio.to_thread(self._encode, texts, pairs, cut, field)

    def read(self, texts: Sequence[str], cut: Cut, field: str) -> list[Tokens]:
        """As `encode`, for a thread that may wait."""
        return self._encode(texts, None, cut, field)

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None, cut: Cut, field: str) -> list[Tokens]:
        first = self.backend.encode_batch(list(texts), add_special_tokens=False)
        second = self.backend.encode_batch(list(pairs), add_special_tokens=False) if pairs else [None] * len(first)
        return [
            self._fit(text, pair if pair else None, cut, f"{field}[{index}]")
            for index, (text, pair) in enumerate(zip(first, second, strict=True))
        ]

    def _fit(self, text: Any, pair: Any, cut: Cut, field: str) -> Tokens:
        room = self.max_tokens - self.backend.num_special_tokens_to_add(pair is not None)
        asked = len(text) + len(pair or ())
        if asked > room:
            if cut is Cut.REFUSE:
                over = asked + self.max_tokens - room
                raise InvalidArgument.of(
                    field, f"{over} tokens are too many: the model takes {self.max_tokens}", reason="INPUT_TOO_LONG"
                )
            _shorten(text, pair, room, cut)
        return self._read(self.backend.post_process(text, pair), cut=asked > room)

    def _read(self, whole: Any, *, cut: bool) -> Tokens:
        """What is kept of a tokenizers.Encoding."""
        return Tokens(whole.ids, whole.type_ids, cut=cut)


def _shorten(text: Any, pair: Any, room: int, cut: Cut) -> None:
    """Cuts a text to `room` tokens; of a pair, the longer one first, as tokenisers do by default."""
    if pair is None:
        text.truncate(room, direction=cut.value)
        return
    shorter = min(len(text), len(pair), room // 2)
    keep = (shorter, room - shorter) if len(text) <= len(pair) else (room - shorter, shorter)
    text.truncate(min(len(text), keep[0]), direction=cut.value)
    pair.truncate(min(len(pair), keep[1]), direction=cut.value)
