"""The hash chain, as pure functions over lines.

A line is canonical JSON, `{"hash":"…","record":{…},"seq":N}`, N counting from 0. Its hash is SHA-256 of the previous
line's hash (32 bytes; zeros before the first) and of the line's own bytes without the hash member. So a reader checks a
line from its bytes, without parsing. The first record is the genesis, which names the writer. The first record of each
later segment repeats the hash that it continues, so that a segment can be checked on its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_HEAD: Final = b'{"hash":"'
_HASH_END: Final = len(_HEAD) + 64
_BODY: Final = b'","record":{'
_BODY_AT: Final = _HASH_END + 2
"""Where the line continues after the hash member's comma."""
_SEQ: Final = b',"seq":'
_SEQ_DIGITS: Final = 20


class Link(NamedTuple):
    """The end of a chain: the number and hash of its last record."""

    seq: int
    hash: bytes


BEFORE_GENESIS: Final = Link(-1, bytes(32))
"""The end of an empty chain."""


class BrokenChain(Exception):
    """The first record that is not as it was written. `seq` is its number, or the number that it should have; -1 where
    something else than a record is broken.
    """

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(f"record {seq}: {why}" if seq >= 0 else why)
        self.seq = seq
        self.why = why


def link(record: bytes, last: Link) -> tuple[bytes, Link]:
    """The line, with its newline, that continues the chain with canonical `record`, and the new end of the chain."""
    seq = last.seq + 1
    body = b'"record":' + record + _SEQ + str(seq).encode() + b"}"
    digest = _digest(last.hash, body)
    return b"".join((_HEAD, digest.hex().encode(), b'",', body, b"\n")), Link(seq, digest)


def follow(lines: Iterable[bytes], last: Link) -> Iterator[Link]:
    """The end of the chain after each of `lines`, which have no newlines. Raises BrokenChain at the first bad line."""
    for line in lines:
        last = after(line, last)
        yield last


def record_of(line: bytes) -> bytes:
    """The canonical record in a line that `follow` has passed."""
    return line[_BODY_AT + len(b'"record":') : line.rindex(_SEQ)]


def after(line: bytes, last: Link) -> Link:
    """The end of the chain after `line`, which has no newline. Raises BrokenChain if the line does not belong there."""
    expected = last.seq + 1
    body = line[_BODY_AT:]
    digest = _digest(last.hash, body)
    if line[:_BODY_AT] == _HEAD + digest.hex().encode() + b'",' and line.endswith(_SEQ + str(expected).encode() + b"}"):
        return Link(expected, digest)
    raise BrokenChain(expected, _why(line, expected))


def _why(line: bytes, expected: int) -> str:
    """The probable fault of a bad line, judged by the number in it."""
    number = line[:-1].rpartition(_SEQ)[2]
    shaped = line.startswith(_HEAD) and line[_HASH_END:].startswith(_BODY) and line.endswith(b"}")
    if not shaped or not number.isdigit() or len(number) > _SEQ_DIGITS:
        return "not a record"
    found = int(number)
    if found > expected:
        return f"missing: record {found} stands in its place"
    if found < expected:
        return f"record {found} stands in its place: inserted, repeated or moved"
    return "altered, or not the one that followed the record before"


def _digest(previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(previous + b"{" + body).digest()
