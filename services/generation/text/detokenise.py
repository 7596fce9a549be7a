"""Tokens to text, one at a time, never splitting a UTF-8 character.

Each token stands for bytes. Byte-level BPE (GPT-2 and after) writes every byte as a printable character, a mapping that
is undone here; SentencePiece writes a space as U+2581 and lone bytes as <0xNN>; ByT5 writes a byte as the character of
that number. WordPiece has words and their ends: what a token adds to a text is seen by decoding it behind another. A
vocabulary of no such kind is decoded token by token. Bytes of an unfinished character wait for the rest; bytes that can
be no character become U+FFFD.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"
_END_OF_WORD = "##"


class Vocabulary(Protocol):
    """The part of a tokeniser that is needed to know what its tokens stand for."""

    @property
    def all_special_ids(self) -> Sequence[int]: ...

    def __len__(self) -> int: ...

    def convert_ids_to_tokens(self, ids: list[int], /) -> Any:
        """The tokens as the vocabulary writes them, a list of strings with None where an id is unused."""

    def decode(self, token_ids: list[int], /) -> Any:
        """The text of tokens."""


class TokenBytes:
    """The bytes of every token. Special tokens have bytes and no text."""

    def __init__(
        self, tokenizer: Vocabulary, size: int | None = None, ends: Iterable[int] = (), *, fresh: bool = False
    ) -> None:
        """`size` is the model's vocabulary size where that is larger than the tokeniser's: models pad theirs. `ends`
        are the tokens that end an output. `fresh` where an output begins a text, and does not go on with one.
        """
        self.fresh = fresh
        written = _written(tokenizer)
        special = special_ids(tokenizer)
        self._bytes = _table(tokenizer, written, special)
        self._bytes += [b""] * ((size or 0) - len(written))
        self.special = special | frozenset(ends)
        """The ids of special tokens, and of those that end an output."""

    def __len__(self) -> int:
        return len(self._bytes)

    def of(self, token_id: int) -> bytes:
        """A token's bytes; those of a special token are its name."""
        return self._bytes[token_id]

    def text_bytes(self, token_id: int) -> bytes:
        """What a token adds to the text: nothing when it is special."""
        return b"" if token_id in self.special else self._bytes[token_id]


class Detokeniser:
    """The text of one sequence."""

    def __init__(self, tokens: TokenBytes, *, fresh: bool = False) -> None:
        """`fresh` leaves out the space that SentencePiece puts before the first word of a text."""
        self._tokens = tokens
        self._fresh = fresh
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> str:
        """The characters that this token completes."""
        text = self._decoder.decode(self._tokens.text_bytes(token_id))
        if self._fresh and text:
            self._fresh = False
            return text.removeprefix(" ")
        return text

    def flush(self) -> str:
        """What is left when no more tokens come: U+FFFD for an unfinished character."""
        return self._decoder.decode(b"", final=True)


def special_ids(tokenizer: Vocabulary) -> frozenset[int]:
    """The ids of the tokens that stand in no text: those that the tokeniser has a use for (its end, its padding), and
    those that its files call special.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset((*tokenizer.all_special_ids, *(place for place, token in added.items() if token.special)))


def _written(tokenizer: Vocabulary) -> list[str]:
    """The tokens as the vocabulary writes them, by id; nothing where an id is unused."""
    vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
    last = max((len(tokenizer) - 1, *vocabulary.values()))
    if vocabulary:
        by_id = {place: token for token, place in vocabulary.items()}
        return [by_id.get(place, "") for place in range(last + 1)]
    return [token or "" for token in tokenizer.convert_ids_to_tokens(list(range(last + 1)))]


def _table(tokenizer: Vocabulary, written: list[str], special: frozenset[int]) -> list[bytes]:
    to_byte = _byte_level_alphabet()
    if _is_byte_level(written, to_byte):
        return [
            token.encode() if index in special else _from_alphabet(token, to_byte)
            for index, token in enumerate(written)
        ]
    if any(token.startswith(_SPACE) for token in written):
        return [_from_sentencepiece(token) for token in written]
    if type(tokenizer).__name__ == "ByT5Tokenizer":
        return [_from_character(token) for token in written]
    if any(token.startswith(_END_OF_WORD) for token in written):
        return _from_words(tokenizer, written, special)
    return [tokenizer.decode([index]).encode() for index in range(len(written))]


def _byte_level_alphabet() -> dict[str, int]:
    """The printable characters that GPT-2 writes bytes with (openai/gpt-2, encoder.py, bytes_to_unicode)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in frozenset(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _is_byte_level(written: Iterable[str], to_byte: dict[str, int]) -> bool:
    # A byte-level vocabulary has each byte as a token of its own; no other kind writes a space as U+0120.
    return {"\u0120", "\u010a"} <= set(written).intersection(to_byte)


def _from_alphabet(token: str, to_byte: dict[str, int]) -> bytes:
    try:
        return bytes(to_byte[character] for character in token)
    except KeyError:  # added later, and written as it is
        return token.encode()


def _from_sentencepiece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()


def _from_character(token: str) -> bytes:
    return bytes([ord(token)]) if len(token) == 1 else token.encode()


def _from_words(tokenizer: Vocabulary, written: list[str], special: frozenset[int]) -> list[bytes]:
    """What each token adds to a text that has a word before it."""
    word = next(place for place, token in enumerate(written) if token.isalpha() and place not in special)
    before = len(tokenizer.decode([word]))
    return [
        token.encode() if place in special else tokenizer.decode([word, place])[before:].encode()
        for place, token in enumerate(written)
    ]
