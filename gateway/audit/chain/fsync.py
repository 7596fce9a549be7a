"""The file operations of the audit log in one place, and a file that is only ever appended to, whole.

Tests put a `Disk` that counts or fails in the place of this one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from gateway.audit.chain.file_watch import WatchedFile

_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
OWNER_ONLY: Final = 0o600


class Disk:
    """The operating system's files. Every method raises OSError."""

    def open(self, path: Path) -> int:
        """Opens a file for appending, and makes it where it is missing."""
        return os.open(path, _APPEND, OWNER_ONLY)

    def write(self, descriptor: int, data: bytes) -> None:
        """Writes all of `data` at the end."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Returns when the written bytes will survive a loss of power."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def size(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_size

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Returns when names made in `path` will survive a loss of power."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> int:
        """Takes an exclusive lock that ends with this process or `close`. Raises BlockingIOError where another one
        holds it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


class AppendFile:
    """A file that ends, as far as possible, after the last append that succeeded."""

    def __init__(self, path: Path, disk: Disk) -> None:
        """Opens `path` or makes it. Raises OSError."""
        self.path = path
        self._disk = disk
        self._descriptor = disk.open(path)
        self.size = disk.size(self._descriptor)
        """Bytes that are known to be durable."""
        self._clean = True
        self._watched = WatchedFile(path, os.fstat(self._descriptor))

    def check_unchanged(self) -> None:
        """Raises LogFileChanged where another file has this name, or where the file has other content than
        was written.
        """
        if self._clean:  # otherwise the next append first takes back a part
            self._watched.check(self.size)

    def append(self, data: bytes) -> None:
        """Writes and syncs `data`, or takes back the part that was written and raises OSError.

        Bytes that a failed sync leaves in memory count as lost: they are cut off, and a retry writes them again.
        """
        self._repair()
        self._clean = False
        try:
            self._disk.write(self._descriptor, data)
            self._disk.sync(self._descriptor)
        except OSError:
            self._try_repair()
            raise
        self.size += len(data)
        self._clean = True

    def cut(self, size: int) -> None:
        """Drops all bytes from `size` on, on disk. Raises OSError."""
        self._disk.truncate(self._descriptor, size)
        self._disk.sync(self._descriptor)
        self.size = size

    def close(self) -> None:
        self._disk.close(self._descriptor)

    def _repair(self) -> None:
        if not self._clean:
            self._disk.truncate(self._descriptor, self.size)
            self._clean = True

    def _try_repair(self) -> None:
        try:
            self._repair()
        except OSError:
            return  # the next append tries again
