r"""The border to a terminal: text from outside, with every character escaped that a terminal obeys or does not show.

Escaped are control characters (C0, DEL and C1, and with them every escape sequence), bidirectional marks and overrides,
line and paragraph separators, zero-width and other invisible characters, and lone surrogates. An escape is visible:
`\x1b`, `\u202e`. A joiner between letters of a script that needs it, or between emoji, is part of the text and stays.

Rich interprets markup in text. So code that prints with Rich passes `rich.text.Text` of an escaped text.
"""

from __future__ import annotations

import re
from typing import Final

_KEPT: Final = "\n\t"
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_OBEYED: Final = (
    r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufff9-\ufffb\U0001d173-\U0001d17a"
)
_UNSEEN: Final = (
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2065\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufff8"
    r"\ufffe\uffff\U0001bca0-\U0001bca3\U000e0000-\U000e0fff"
)
_JOINERS: Final = r"[\u200c\u200d\ufe0e\ufe0f]"
_JOINED: Final = r"\u0600-\u08ff\u0900-\u109f\u1780-\u18af\u2000-\u33ff\ufe0e\ufe0f\U0001f000-\U0001faff"
"""Arabic, the scripts of India and their neighbours, and what is drawn: symbols and emoji."""
_SELECTED: Final = _JOINED + r"0-9#*\xa9\xae"
"""The characters that a variation selector can follow; it turns a digit into a keycap."""

_BEFORE: Final = rf"(?:(?<![{_SELECTED}])[\ufe0e\ufe0f]|(?<![{_JOINED}])[\u200c\u200d])"
_AFTER: Final = rf"[\u200c\u200d](?![{_JOINED}])"
_UNSAFE: Final = re.compile(rf"[{_OBEYED}{_UNSEEN}]|{_BEFORE}|{_AFTER}")
_PIECE_UNSAFE: Final = re.compile(rf"[{_OBEYED}{_UNSEEN}]|(?!\A){_BEFORE}|{_AFTER[:-1]}|\Z)")


def escaped(text: str, *, piece: bool = False) -> str:
    """`text` on its own lines: line ends and tabs stay. Of a text that comes in pieces, each is a `piece`: what stands
    beside its ends is not known yet.
    """
    return (_PIECE_UNSAFE if piece else _UNSAFE).sub(_escape_but_kept, text)


def line(text: str) -> str:
    """`text` on one line: line ends and tabs are escaped, too."""
    return _UNSAFE.sub(_escape, text)


def json_escaped(document: str) -> str:
    """The same JSON, with what a terminal must not get escaped as JSON does. Line ends between members stay."""
    return _UNSAFE.sub(_escape_json, document)


def _escape_but_kept(found: re.Match[str]) -> str:
    return found[0] if found[0] in _KEPT else _escape(found)


def _escape(found: re.Match[str]) -> str:
    letter, code = found[0], ord(found[0])
    if letter in _SHORT:
        return _SHORT[letter]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_json(found: re.Match[str]) -> str:
    if found[0] == "\n":
        return "\n"
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
