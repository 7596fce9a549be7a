"""The log of a process under supervision: JSON lines as the process wrote them, and every other line inside one.

Libraries, interpreters and programs that are not ours write what they like to standard error: progress bars, warnings,
the last words of a crash. A collector that reads JSON lines reads those too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

WRAPPED: Final = "stderr"
"""The logger of a line that was not JSON."""
_OWNER_ONLY: Final = 0o600
_MAX_LINE: Final = 65_536
"""Bytes of a line; a longer one becomes several."""
_MAX_FILE: Final = 64 * 1024 * 1024
_BREAKS: Final = re.compile(rb"[\r\n]+")


class LogFile(asyncio.Protocol):
    """Appends what comes through a pipe to a file, which only its owner reads."""

    def __init__(self, path: Path, service: str) -> None:
        """`service` is what wrapped lines name. Raises OSError."""
        self.closed = asyncio.Event()
        self._service = service
        self._rest = b""
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _OWNER_ONLY), "ab", 0)
        os.fchmod(self._file.fileno(), _OWNER_ONLY)  # a file that was there before had a mode of its own

    def data_received(self, data: bytes) -> None:
        """Writes the lines that are complete."""
        *lines, self._rest = _BREAKS.split(self._rest + data)
        while len(self._rest) >= _MAX_LINE:
            lines.append(self._rest[:_MAX_LINE])
            self._rest = self._rest[_MAX_LINE:]
        self._write(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        """Writes what has no end of line."""
        self._write([self._rest])
        self._file.close()
        self.closed.set()

    def _write(self, lines: list[bytes]) -> None:
        made = b"".join(self._line(line) for line in lines if line.strip())
        try:
            self._file.write(made)
        except OSError:
            return  # a full disk is no reason to stop reading: the process would stand still

    def _line(self, line: bytes) -> bytes:
        return (line if _is_json(line) else _wrapped(line, self._service)) + b"\n"


def _is_json(line: bytes) -> bool:
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _wrapped(line: bytes, service: str) -> bytes:
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "warning",
        "service": service,
        "logger": WRAPPED,
        "message": line.decode(errors="replace"),
    }
    return json.dumps(entry).replace("\x7f", "\\u007f").encode()


def unwrapped(line: str) -> str:
    """The text that a process wrote, given a line of its log."""
    found = parsed(line)
    return str(found.get("message", "")) if found.get("logger") == WRAPPED else line


def parsed(line: str) -> dict[str, Any]:
    """The members of a JSON line; none of another."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def rotate(path: Path, longest: int = _MAX_FILE) -> None:
    """Puts a log that has grown beyond `longest` bytes aside, as `path`.1, .2 and so on; none is deleted, because the
    audit's checkpoints are in them. Raises OSError.
    """
    if not path.exists() or path.stat().st_size <= longest:
        return
    numbers = (int(found.suffix[1:]) for found in path.parent.glob(f"{path.name}.*") if found.suffix[1:].isdecimal())
    path.rename(path.with_name(f"{path.name}.{max(numbers, default=0) + 1}"))
