"""The reader of lines: whether a line is spelled exactly as the gateway writes it, and its record.

The hash of a line shows that it was not changed since. It does not show that all readers see the same record in it.
JSON has many spellings of one value: escapes, white space, repeated members, numbers with a fraction. Each could hide a
member from one reader and show it to another. So each of them breaks the chain.

Nearly all lines are records of calls. One expression matches those, their members in order and each at most once, and
finds their time. Other lines, and texts with an escape, are parsed and encoded again.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from gateway.audit.chain.hash_chain import BrokenChain
from gateway.audit.chain.segments import MAX_LINE
from gateway.audit.record import CALL_EVENTS, KINDS, canonical

_TEXT: Final = rb'"[^"\\\x00-\x1f]++"'
_NUMBER: Final = rb"[1-9][0-9]{0,14}"
_STAGES: Final = rb'\{(?:"[a-z_]++":(?:0|[1-9][0-9]{0,14})(?:,(?=")|(?=\})))++\}'
_SHAPES: Final = {str: _TEXT, int: _NUMBER, dict: _STAGES}


def _member(name: str) -> bytes:
    return b'"%b":%b' % (name.encode(), _SHAPES[KINDS[name]])


def _members(after: str, before: str) -> bytes:
    """The optional members whose names sort between two others, each with the comma that follows it."""
    return b"".join(b"(?:%b,)?+" % _member(name) for name in sorted(KINDS) if after < name < before)


_CALL: Final = re.compile(
    rb'\{"hash":"[0-9a-f]{64}","record":\{'
    + _members("", "event")
    + rb'"event":"(?:%b)",' % "|".join(CALL_EVENTS).encode()
    + _members("event", "time")
    + rb'"time":([1-9][0-9]{0,15})'
    + b"".join(b"(?:,%b)?+" % _member(name) for name in sorted(KINDS) if name > "time")
    + rb'\},"seq":[1-9][0-9]{0,17}\}'
).fullmatch
_LINE: Final = frozenset(("hash", "record", "seq"))
_SAFE: Final = 2**53
"""From here on, readers of JSON differ on the value of an integer."""

_BEGINS: Final = re.compile(rb'\{"hash":"[0-9a-f]{64}(?:","record":\{|","key":")[^\x00-\x1f]*+')
_LONGEST_BEGINNING: Final = len(b'{"hash":"') + 64 + len(b'","record":{')


class Entry(NamedTuple):
    """The content of a line, as far as a reader of the chain needs it."""

    time: int
    """Microseconds since the Unix epoch; 0 where the record has no time."""
    content: dict[str, Any] | None
    """The record; None for that of a call, of which only the time matters."""


def read(line: bytes, seq: int) -> Entry:
    """The entry of record `seq`, read from its line without the newline. Raises BrokenChain for another spelling."""
    found = _CALL(line)
    if found is not None and (line.isascii() or _is_utf8(line)) and (time := int(found[1])) < _SAFE:
        return Entry(time, None)
    content = record(line)
    if content is None:
        raise BrokenChain(seq, "not spelled as the gateway writes it")
    return Entry(_time(content), content)


def record(line: bytes) -> dict[str, Any] | None:
    """The record in a line, without the newline; None where the line is not spelled exactly as the gateway
    writes it.
    """
    try:
        stated = json.loads(line.decode())
        if not isinstance(stated, dict) or stated.keys() != _LINE or canonical(stated) != line:
            return None
    except (ValueError, TypeError, RecursionError):
        return None
    content = stated["record"]
    return content if isinstance(content, dict) and _is_record(content) and _is_number(stated["seq"]) else None


def unfinished(rest: bytes) -> bool:
    """Whether a crash can leave `rest` at the end of a file: the beginning of a line, and blocks that were never
    filled.
    """
    written = rest.rstrip(b"\x00")
    if len(written) >= _LONGEST_BEGINNING:
        return len(written) < MAX_LINE and _BEGINS.fullmatch(written) is not None
    return any(shape.startswith(written) and _BEGINS.match(shape) for shape in _shapes(written))


def _shapes(written: bytes) -> tuple[bytes, ...]:
    """Prefixes of lines that agree with `written` in the digits of its hash."""
    digits = written[len(b'{"hash":"') :][:64].ljust(64, b"0")
    return tuple(b'{"hash":"' + digits + rest for rest in (b'","record":{', b'","key":"'))


def _is_record(content: dict[str, Any]) -> bool:
    """Strings, integers and objects of integers, with ASCII names. A record of a call has no empty field."""
    if content.get("event") in CALL_EVENTS and not all(content.values()):
        return False
    return all(name.isascii() and _is_value(value) for name, value in content.items())


def _is_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(name.isascii() and _is_number(each) for name, each in value.items())
    return isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_SAFE < value < _SAFE


def _time(content: dict[str, Any]) -> int:
    time = content.get("time")
    return time if isinstance(time, int) and time > 0 else 0


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
