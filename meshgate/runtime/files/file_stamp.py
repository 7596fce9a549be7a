"""Whether a file is another than it was, told by one system call and without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class FileStamp(NamedTuple):
    """The state by which a change of a file shows: a rename gives another inode, a write another time or size."""

    modified_ns: int
    """Nanoseconds since 1970. File systems keep it in steps of some milliseconds: what was written a moment ago may be
    written again within one.
    """
    size: int
    """Bytes."""
    inode: int


def of(path: Path) -> FileStamp:
    """The stamp of a file, or of what a link leads to. Raises OSError, also where the file is just being replaced."""
    found = path.stat()
    return FileStamp(found.st_mtime_ns, found.st_size, found.st_ino)
