"""From text to token ids, cut or refused where there are too many. Runs beside the model's thread, in Rust.

A long text is read in pieces (services.text.pieces) and no further than to where it is known to be too long; what is
kept of it are the tokens that the whole text would give.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from tokenizers import Encoding

from meshgate.errors import InvalidArgument
from services.text.pieces import PIECE, Division, division
from services.text.preparing import PreparedText, Steps, whole

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


class _Read(NamedTuple):
    """A text as it was read."""

    encoding: Any
    """A tokenizers.Encoding, of the part that can be kept."""
    tokens: int
    """Of all that was read."""
    whole: bool = True
    """Whether that was all of it."""


class Tokeniser:
    """A model's tokeniser. Safe to use from several threads: it keeps no settings between calls."""

    def __init__(self, backend: Any, max_tokens: int) -> None:
        """`backend` is a tokenizers.Tokenizer; its own padding and truncation are switched off."""
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True  # markers in a text are text; this setting does not travel with a pickle
        self.backend: Backend = backend
        self.max_tokens = max_tokens
        self.division = self._division(backend)

    async def encode(
        self, texts: Sequence[str], cut: Cut, field: str, reading: PreparedText | None = None
    ) -> list[Tokens]:
        """Token ids of texts; without a `reading`, on a thread that others wait for. Raises InvalidArgument
        (INPUT_TOO_LONG), naming `field` and the index, and what `Preparing.run` raises.
        """
        if sum(map(len, texts)) + _EACH * len(texts) <= _FEW:
            return self.read(texts, cut, field)
        if reading is None:
            return await asyncio.to_thread(self.read, texts, cut, field)
        return await reading.run(self.steps(texts, None, cut, field), *_sizes(texts))

    async def encode_pairs(
        self, texts: Sequence[str], pairs: Sequence[str], cut: Cut, field: str, reading: PreparedText | None = None
    ) -> list[Tokens]:
        """Token ids of texts with a second one each; an empty one is none."""
        if reading is None:
            return await asyncio.to_thread(whole, self.steps(texts, pairs, cut, field))
        return await reading.run(self.steps(texts, pairs, cut, field), *_sizes([*texts, *pairs]))

    def count(self, text: str) -> int:
        """The tokens of a text, those around it included; for one that is short, such as a prompt."""
        [made] = self.backend.encode_batch([text], add_special_tokens=False)
        return len(made) + self.backend.num_special_tokens_to_add(False)

    def read(self, texts: Sequence[str], cut: Cut, field: str) -> list[Tokens]:
        """As `encode`, for a thread that may wait."""
        return whole(self.steps(texts, None, cut, field))

    def steps(self, texts: Sequence[str], pairs: Sequence[str] | None, cut: Cut, field: str) -> Steps[list[Tokens]]:
        """As `encode`, in steps (see Preparing). What is long is not begun in the first one."""
        made: list[Tokens] = []
        for group in _groups(texts, pairs):
            if made or group.size > PIECE:
                yield group.size if group.size <= PIECE else 0
            if group.size <= PIECE:
                made += self._short(group, len(made), cut, field)
            else:
                made.append((yield from self._long(group, cut, f"{field}[{len(made)}]")))
        return made

    def _division(self, backend: Any) -> Division:
        return division(backend)

    def _short(self, group: _Group, start: int, cut: Cut, field: str) -> list[Tokens]:
        first = self.backend.encode_batch(list(group.texts), add_special_tokens=False)
        pairs = list(group.pairs)
        second = self.backend.encode_batch(pairs, add_special_tokens=False) if pairs else [None] * len(first)
        return [
            self._fit(
                _Read(text, len(text)), _Read(pair, len(pair)) if pair else None, cut, f"{field}[{start + index}]"
            )
            for index, (text, pair) in enumerate(zip(first, second, strict=True))
        ]

    def _long(self, group: _Group, cut: Cut, field: str) -> Steps[Tokens]:
        """A long text, or a pair of which one is long. The longer one of a pair loses most, so both are read to their
        ends where they are to be cut.
        """
        text, pair = self.division.shortened("".join(group.texts)), self.division.shortened("".join(group.pairs))
        room = self._room(bool(pair))
        if cut is Cut.REFUSE:
            self._check(self.division.least(text) + self.division.least(pair), room, field, least=True)
        first = yield from self._read_pieces(text, room, cut, to_the_end=bool(pair) and cut is not Cut.REFUSE)
        second = None
        if pair:
            second = yield from self._read_pieces(pair, room, cut, to_the_end=cut is not Cut.REFUSE)
        return self._fit(first, second if second and second.tokens else None, cut, field)

    def _read_pieces(self, text: str, room: int, cut: Cut, *, to_the_end: bool) -> Steps[_Read]:
        """At least `room` tokens of a text, where it has them, from the side that is kept."""
        kept: list[Any] = []
        count, ended = 0, True
        pieces = self.division.backwards(text) if cut is Cut.START else self.division.pieces(text)
        for piece in pieces:
            yield len(piece)
            [read] = self.backend.encode_batch([piece], add_special_tokens=False)
            if count <= room:
                kept.append(read)
            count += len(read)
            if count > room and not to_the_end:
                ended = False  # or there was just as much
                break
        if cut is Cut.START:
            kept.reverse()
        encoding = kept[0] if len(kept) == 1 else Encoding.merge(kept, growing_offsets=False)
        return _Read(encoding, count, whole=ended)

    def _room(self, pair: bool) -> int:
        return self.max_tokens - self.backend.num_special_tokens_to_add(pair)

    def _check(self, asked: int, room: int, field: str, *, least: bool) -> None:
        if asked > room:
            over = asked + self.max_tokens - room
            raise InvalidArgument.of(
                field,
                f"{'at least ' if least else ''}{over} tokens are too many: the model takes {self.max_tokens}",
                reason="INPUT_TOO_LONG",
            )

    def _fit(self, text: _Read, pair: _Read | None, cut: Cut, field: str) -> Tokens:
        room = self._room(pair is not None)
        asked = text.tokens + (pair.tokens if pair else 0)
        if cut is Cut.REFUSE:
            self._check(asked, room, field, least=not (text.whole and (pair is None or pair.whole)))
        if asked > room:
            _shorten(text, pair, room, cut)
        return self._read(self.backend.post_process(text.encoding, pair and pair.encoding), cut=asked > room)

    def _read(self, whole: Any, *, cut: bool) -> Tokens:
        """What is kept of a tokenizers.Encoding."""
        return Tokens(whole.ids, whole.type_ids, cut=cut)


class _Group(NamedTuple):
    """Short texts, or one that is long, with their pairs."""

    texts: Sequence[str]
    pairs: Sequence[str]
    size: int


def _groups(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[_Group]:
    """The texts in order, as many together as make a step."""
    start = size = 0
    for place, text in enumerate(texts):
        own = len(text) + (len(pairs[place]) if pairs else 0)
        if place > start and size + own > PIECE:
            yield _group(texts, pairs, start, place, size)
            start, size = place, 0
        size += own
    yield _group(texts, pairs, start, len(texts), size)


def _group(texts: Sequence[str], pairs: Sequence[str] | None, start: int, end: int, size: int) -> _Group:
    return _Group(texts[start:end], pairs[start:end] if pairs else (), size)


def _sizes(texts: Iterable[str]) -> tuple[int, int]:
    """Bytes of texts, and the characters that the first step of them reads."""
    size = sum(len(text.encode()) for text in texts)
    return size, min(size, PIECE)


def _shorten(text: _Read, pair: _Read | None, room: int, cut: Cut) -> None:
    """Cuts a text to `room` tokens; of a pair, the longer one first, as tokenisers do by default."""
    if pair is None:
        text.encoding.truncate(room, direction=cut.value)
        return
    shorter = min(text.tokens, pair.tokens, room // 2)
    keep = (shorter, room - shorter) if text.tokens <= pair.tokens else (room - shorter, shorter)
    text.encoding.truncate(min(text.tokens, keep[0]), direction=cut.value)
    pair.encoding.truncate(min(pair.tokens, keep[1]), direction=cut.value)
