"""A key file: made once, whole or not at all, readable by its owner alone, and never overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meshgate.runtime.files import atomic_write


def obtain(path: Path, make: Callable[[], bytes], *, mode: int = atomic_write.OWNER_ONLY) -> bytes:
    """The content of `path`. Where the file does not exist, `make` gives its content; of two makers the first wins.

    Raises OSError.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write.create(path, make(), mode=mode)
    return path.read_bytes()
