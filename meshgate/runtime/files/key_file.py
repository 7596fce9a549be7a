"""Key files that are made once: whole or not at all, owner-only, and never overwritten."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def obtain(path: Path, make: Callable[[], bytes], *, mode: int = 0o600) -> bytes:
    """The content of `path`, which is made by `make` where it does not exist. Of two makers at once the first wins.

    Raises OSError.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = _draft(path, make(), mode)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_bytes()


def replace(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Writes `path` atomically: a reader sees the old content or the new, never a part. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _draft(path, content, mode).replace(path)


def _draft(path: Path, content: bytes, mode: int) -> Path:
    """A synced file beside `path`, never readable by more than `mode` allows, not even for a moment."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return draft
