"""The one writer of files that must be there whole or not at all. Standard library only, so that every part may use it.

The content goes to a draft beside the file, which then takes the file's name in one step. A crash at any moment leaves
the old file or the new one, and at most a draft (`.NAME.RANDOM`) beside it. The draft has its final mode from its
first byte on, so that no other user can read a secret even for a moment.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Final

OWNER_ONLY: Final = 0o600
"""The mode of a secret."""
READABLE: Final = 0o644


class Sync(Enum):
    """How much of a write is certain to survive a loss of power when the call returns."""

    NOTHING = 0
    """The file may be lost or empty."""
    CONTENT = 1
    """The file is the old one or the new one, whole."""
    NAME = 2
    """The file is the new one."""


def write(
    path: Path, content: bytes, *, mode: int = READABLE, sync: Sync = Sync.CONTENT, ignore_umask: bool = False
) -> None:
    """Puts `content` at `path`, in place of an older file. A reader sees the old file or the new one. Raises OSError.

    `mode` is less what the umask takes away, unless `ignore_umask`. The directory must exist.
    """
    with _draft(path, content, mode, sync, ignore_umask=ignore_umask) as draft:
        draft.replace(path)
    if sync is Sync.NAME:
        _sync_directory(path.parent)


def create(path: Path, content: bytes, *, mode: int = OWNER_ONLY, sync: Sync = Sync.CONTENT) -> bool:
    """Puts `content` at `path` unless a file exists: True if this call made the file. Raises OSError.

    Of two processes that create a file at once the first wins, and the other one's content is dropped.
    """
    with _draft(path, content, mode, sync) as draft:
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
    if sync is Sync.NAME:
        _sync_directory(path.parent)
    return True


@contextmanager
def _draft(path: Path, content: bytes, mode: int, sync: Sync, *, ignore_umask: bool = False) -> Iterator[Path]:
    """A file beside `path` with all of `content`. It is gone at the end."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if ignore_umask:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if sync is not Sync.NOTHING:
                os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
