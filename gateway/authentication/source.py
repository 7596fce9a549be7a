"""The common part of issuers' keys and revocation lists: both come from a source that changes or is out of reach.

A source that is out of reach leaves the last good state in use. Its owner says for how long.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Protocol

from meshgate.runtime.files import bounded_read, file_stamp
from meshgate.runtime.files.file_stamp import FileStamp
from meshgate.runtime.refresher import Refresher, SourceHealth

_FRESH_NS: Final = 50_000_000
"""A file that changed so shortly before it was read may change again without a new time stamp."""


class SourceError(Exception):
    """The source can't be read or used. The text names no path and no host, and repeats no content."""


class Source(Protocol):
    """Keys or revocations that come from elsewhere and are kept fresh in the background."""

    health: SourceHealth
    refresher: Refresher
    """Runs `refresh` in the background."""

    async def refresh(self) -> None:
        """Reads the source once, in bounded time. Never raises: a failure leaves the last good state in use."""


class SourceFile:
    """A small file that is read when its time, size or inode has changed.

    It is read in the event loop: such files are local, and a look at an unchanged one takes microseconds.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._seen: FileStamp | None = None

    def changed(self) -> bytes | None:
        """The content where it is new, else None. Raises SourceError, and then the next look reads again."""
        seen, self._seen = self._seen, None
        try:
            found = file_stamp.of(self._path)
            content = None if found == seen else self._content()
        except OSError as error:
            raise SourceError(error.strerror or "not readable") from None
        if abs(time.time_ns() - found.modified_ns) > _FRESH_NS:
            self._seen = found
        return content

    def forget(self) -> None:
        """The content was invalid: the next look reads again."""
        self._seen = None

    def _content(self) -> bytes:
        return bounded_read.read(self._path, self._max_bytes)
