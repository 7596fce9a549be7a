"""The files of a log: segments in order, `audit-00000001.jsonl` and on, and the reading of their lines."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from gateway.audit.chain.checkpoint import FILE

_NAME: Final = re.compile(r"audit-([0-9]{8})\.jsonl")
MAX_LINE: Final = 64 * 1024


class NoLog(FileNotFoundError):
    """The directory has no log."""


def name(number: int) -> str:
    """The file name of a segment, numbered from 1."""
    return f"audit-{number:08d}.jsonl"


def listed(directory: Path) -> list[tuple[int, Path]]:
    """The segments in `directory` by number. Raises OSError."""
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted((int(match[1]), regular(path)) for match, path in found if match)


def regular(path: Path) -> Path:
    """The same path. Raises OSError for a pipe or a device, which would never end; a missing file is neither."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return path


def writers(root: Path) -> list[tuple[str, Path]]:
    """The logs under `root` by the names of their writers: a log in `root` itself has no name.

    Raises OSError, NoLog where there is no log at all.
    """
    own = [("", root)] if _is_log(root) else []
    parts = sorted((path.name, path) for path in root.iterdir() if path.is_dir() and _is_log(path))
    if not own and not parts:
        raise NoLog(errno.ENOENT, "no audit log", str(root))
    return [*own, *parts]


def _is_log(directory: Path) -> bool:
    """Whether the directory has a log, or the checkpoints of a log whose segments are all gone."""
    checkpoints = directory / FILE
    return bool(listed(directory)) or (checkpoints.is_file() and checkpoints.stat().st_size > 0)


def lines(path: Path) -> Iterator[bytes]:
    """The lines with their newlines; the last may lack one. Of an overlong line, longer than MAX_LINE, comes the
    beginning and the result of `_beyond` for the rest. Raises OSError.
    """
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE):
            overlong = len(line) == MAX_LINE and not line.endswith(b"\n")
            yield line + _beyond(file) if overlong else line


def _beyond(file: BinaryIO) -> bytes:
    """Reads to the end of an overlong line. Returns its first byte that is not zero; blocks that were never filled are
    zero.
    """
    first = b""
    while piece := file.readline(MAX_LINE):
        first = first or piece.lstrip(b"\x00")[:1]
        if piece.endswith(b"\n"):
            return first
    return first


def lines_reversed(path: Path) -> Iterator[bytes]:
    """The lines that end with a newline, last first. Of an overlong line only the beginning may come. Raises
    OSError.
    """
    torn = torn_from(path)
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END) if torn is None else torn
        if not end:
            return
        end -= 1  # the newline of the last
        after = b""
        while end > 0:
            start = max(0, end - MAX_LINE)
            file.seek(start)
            before, *whole = (file.read(end - start) + after).split(b"\n")
            yield from (line + b"\n" for line in reversed(whole))
            after = before if len(before) <= MAX_LINE else b""
            end = start
        yield after + b"\n"


def torn_from(path: Path) -> int | None:
    """Where a last line without a newline begins, or None: a crash in the middle of a write leaves one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(0, end - MAX_LINE)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                after = start + newline + 1
                return after if after < size else None
            end = start
    return 0 if size else None
