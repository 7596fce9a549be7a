"""Keys that follow each other: `audit-hmac.key` is the first, `audit-hmac-2.key` the next, and so on.

Several processes share the directory. Each may find that the newest is too old and make the next: it has one name, so
the first to make it makes it for all. A key's age is that of its file, which is never written again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from meshgate.runtime.files import key_file


class KeyRotation:
    """The files of one kind of key."""

    def __init__(self, directory: Path, stem: str, suffix: str) -> None:
        self._directory = directory
        self._stem = stem
        self._suffix = suffix
        self._name = re.compile(rf"{re.escape(stem)}(?:-([2-9]|[1-9]\d{{1,5}}))?{re.escape(suffix)}", re.ASCII)

    def path(self, number: int) -> Path:
        """Where key `number`, from 1, is."""
        middle = "" if number == 1 else f"-{number}"
        return self._directory / f"{self._stem}{middle}{self._suffix}"

    def listed(self) -> list[tuple[int, Path]]:
        """What is there, oldest first. Raises OSError."""
        if not self._directory.exists():
            return []
        found = ((self._name.fullmatch(path.name), path) for path in self._directory.iterdir())
        return sorted((int(match[1] or 1), path) for match, path in found if match)

    def newest(self, make: Callable[[], bytes], *, before: float) -> int:
        """The number of the newest key; the next one is made where that is from `before`, in Unix seconds, or earlier.

        Raises OSError.
        """
        listed = self.listed()
        number = listed[-1][0] if listed else 0
        if not listed or listed[-1][1].stat().st_mtime <= before:
            number += 1
            key_file.obtain(self.path(number), make)
        return number
