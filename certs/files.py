"""Writing secrets: never readable by others, never half there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600
_PUBLIC: Final = 0o644


def private_directory(path: Path) -> None:
    """Makes a directory that only its owner may enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


def write_private(path: Path, data: bytes) -> None:
    """Writes a secret: mode 0600 from its first byte on, and put in place whole."""
    _write(path, data, _PRIVATE)


def write_public(path: Path, data: bytes) -> None:
    """Writes what anyone may read, put in place whole."""
    _write(path, data, _PUBLIC)


def _write(path: Path, data: bytes, mode: int) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
