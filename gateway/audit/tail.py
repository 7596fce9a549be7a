"""The last records of a log, and those that come, for a person who watches. It verifies nothing."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.audit import chain, segments


def last(directory: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` records, oldest first. Raises OSError."""
    found: list[dict[str, Any]] = []
    for _, path in reversed(segments.listed(directory)):
        wanted = count - len(found)
        if wanted <= 0:
            break
        recent = deque((line for line in segments.lines(path) if line.endswith(b"\n")), maxlen=wanted)
        found = [_record(line) for line in recent] + found
    return found


class Follower:
    """Reads what is appended from now on, across segments."""

    def __init__(self, directory: Path) -> None:
        """Starts at the end. Raises OSError."""
        self._directory = directory
        self._read = {number: path.stat().st_size for number, path in segments.listed(directory)}

    def new(self) -> Iterator[dict[str, Any]]:
        """The records appended since the last time. Raises OSError."""
        for number, path in segments.listed(self._directory):
            start = self._read.get(number, 0)
            if path.stat().st_size > start:
                yield from self._from(number, path, start)

    def _from(self, number: int, path: Path, start: int) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read[number] = self._read.get(number, 0) + len(line)
                yield _record(line)


def _record(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(chain.record_of(line[:-1]))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"event": "unreadable"}
