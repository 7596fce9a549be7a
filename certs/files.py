"""Writing secrets: never readable by others, never half there, never by two at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshgate.runtime.files import atomic_write


def state_directory(path: Path) -> None:
    """Makes the directory of a mesh's state where it is missing, kept out of git: keys and tokens are in it.

    A directory that was there before is left as it is: it may be a project's own. Raises OSError.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return
    (path / ".gitignore").write_text("*\n", encoding="utf-8")


@contextmanager
def private_directory(path: Path) -> Iterator[None]:
    """Makes a directory that only its owner may enter, and holds it against other writers: two at once would leave a CA
    of one with a key of the other. Raises OSError.
    """
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go when it is closed
        yield
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> None:
    """Writes a secret, whole or not at all, with mode 0600 from its first byte on."""
    atomic_write.write(path, data, mode=atomic_write.OWNER_ONLY)


def write_public(path: Path, data: bytes) -> None:
    """Writes what anyone may read, whole or not at all."""
    atomic_write.write(path, data)
