"""Key files that replace each other: `audit-hmac.key` is the first, `audit-hmac-2.key` the next, and so on.

Several processes share the directory. Each may find the newest key too old and make the next one. That one has a fixed
name, so the first process to make it makes it for all. The age of a key is the age of its file, which is never written
again.
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
        """The path of key `number`, counted from 1."""
        middle = "" if number == 1 else f"-{number}"
        return self._directory / f"{self._stem}{middle}{self._suffix}"

    def listed(self) -> list[tuple[int, Path]]:
        """The key files by number, oldest first. Raises OSError."""
        if not self._directory.exists():
            return []
        found = ((self._name.fullmatch(path.name), path) for path in self._directory.iterdir())
        return sorted((int(match[1] or 1), path) for match, path in found if match)

    def newest(self, make: Callable[[], bytes], *, before: float) -> int:
        """The number of the newest key. Makes the next key where the newest is from `before`, in Unix seconds, or
        earlier.

        Raises OSError.
        """
        listed = self.listed()
        number = listed[-1][0] if listed else 0
        if not listed or listed[-1][1].stat().st_mtime <= before:
            number += 1
            key_file.obtain(self.path(number), make)
        return number
