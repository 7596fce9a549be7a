"""The last records of all writers' logs, and new ones as they come, for an operator who watches. It verifies
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gateway.audit.chain import segments
from gateway.audit.tools.search import Query, content, search


def last(root: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` records, oldest first. Raises OSError."""
    return list(islice(search(root, Query(), newest_first=True), count))[::-1]


class Follower:
    """Reads the records that are appended from now on, across segments and writers."""

    def __init__(self, root: Path) -> None:
        """Starts at the end of each log. Raises OSError."""
        self._root = root
        self._read = {path: path.stat().st_size for path in self._segments()}

    def new(self) -> Iterator[dict[str, Any]]:
        """The records appended since the last time, one writer's after another's. Raises OSError."""
        for path in self._segments():
            start = self._read.get(path, 0)
            if path.stat().st_size > start:
                yield from self._from(path, start)

    def _segments(self) -> list[Path]:
        return [path for _, directory in segments.writers(self._root) for _, path in segments.listed(directory)]

    def _from(self, path: Path, start: int) -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read[path] = self._read.get(path, 0) + len(line)
                yield content(line[:-1])
