"""Whether the files of an open log are still the same and in their place.

A writer holds its files open. So it can go on writing into a file that was renamed, removed or cut. A reader goes by
the names, and would never see these records. So the writer looks the names up again every half second, and not for each
record.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Final

CHECK_SECONDS: Final = 0.5
_AT_A_LOOK: Final = 256
"""Sealed segments for one check, in turns, so that a log of very many costs no more."""
_REMEDY: Final = "put it back as it was, or stop the gateway and see what `meshgate audit verify` says"


class LogFileChanged(OSError):
    """A file of the log was moved or changed: records that are written to it are not in the log."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(errno.ESTALE, f"{name} {what}; {_REMEDY}")


class WatchedFile:
    """A file, by its name, and the state that it must have."""

    def __init__(self, path: Path, opened: os.stat_result) -> None:
        """`opened` is the state of the descriptor, or of the name when it was first looked up."""
        self.path = path
        self._identity = _identity(opened)
        self._modified = opened.st_mtime_ns
        self._mode = opened.st_mode & (stat.S_IRUSR | stat.S_IWUSR)
        self.size = opened.st_size

    def check(self, size: int | None = None) -> None:
        """Raises LogFileChanged. `size` is the expected size of a file that grows."""
        name, expected = self.path.name, self.size if size is None else size
        found = _found(self.path)
        if _identity(found) != self._identity:
            raise LogFileChanged(name, "was replaced: another file has its name")
        if found.st_size < expected:
            raise LogFileChanged(
                name, "was emptied" if not found.st_size else f"was cut from {expected} bytes to {found.st_size}"
            )
        if found.st_size > expected or (size is None and found.st_mtime_ns != self._modified):
            raise LogFileChanged(name, "was written to by another process")
        if found.st_mode & stat.S_IRUSR != self._mode & stat.S_IRUSR:
            raise LogFileChanged(name, "can't be read any more: its mode was changed")


class LogDirectory:
    """The directory of a log, and its sealed segments."""

    def __init__(self, directory: Path, sealed: Iterable[Path]) -> None:
        """Raises OSError."""
        self._directory = directory
        made = directory.stat()
        self._identity = _identity(made)
        self._sealed = [WatchedFile(path, path.lstat()) for path in sealed]
        self._at = 0

    def seal(self, path: Path) -> None:
        """Adds a segment that has been sealed. Raises OSError."""
        self._sealed.append(WatchedFile(path, path.lstat()))

    def check(self) -> None:
        """Checks the directory and some of the segments. Raises LogFileChanged."""
        found = _found(self._directory, "the directory of the audit log")
        if _identity(found) != self._identity:
            raise LogFileChanged("the directory of the audit log", "was replaced: another one has its name")
        if self._at >= len(self._sealed):
            self._at = 0
        for watched in islice(self._sealed, self._at, self._at + _AT_A_LOOK):
            watched.check()
        self._at += _AT_A_LOOK


class PeriodicCheck:
    """When the next check is due."""

    def __init__(self, check: Callable[[], None], monotonic: Callable[[], float]) -> None:
        self._check = check
        self._monotonic = monotonic
        self._at = monotonic()
        self._disturbed = False

    def due(self) -> float:
        """Seconds until the next check."""
        return max(0.0, self._at - self._monotonic())

    def look(self) -> None:
        """Checks if it is time, and each time while something is wrong. Raises LogFileChanged."""
        if self._disturbed or self.due() == 0:
            self._at = self._monotonic() + CHECK_SECONDS
            self._disturbed = True
            self._check()
            self._disturbed = False


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """Device, inode and kind: a removed file leaves its inode number to the next file."""
    return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)


def _found(path: Path, name: str = "") -> os.stat_result:
    try:
        return path.lstat()
    except FileNotFoundError:
        raise LogFileChanged(name or path.name, "was renamed or removed") from None
    except OSError as error:
        raise LogFileChanged(name or path.name, f"can't be found any more: {error.strerror}") from None
