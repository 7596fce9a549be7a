"""What keys and revocations have in common: they come from elsewhere, change while we run, and may be out of reach.

A source that is out of reach leaves what is known as it is. How long that is believed is for its owner to say; here is
how it is told: once when it begins and once when it ends, with a count between.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from meshgate.runtime.files import bounded_read, file_stamp
from meshgate.runtime.files.file_stamp import FileStamp

_log = logging.getLogger(__name__)

_FRESH_NS: Final = 50_000_000
"""A file changed so shortly before it was read may change again without its time showing it."""


class SourceError(Exception):
    """What a source has can't be had or used. The text tells nothing of paths, hosts or content."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source is, for metrics."""

    name: str
    """`keys` or `revocations`, and which."""
    age_seconds: float
    """Since the last good look; infinite where there was none."""
    failures: int
    """Looks that failed since the start."""


class SourceHealth:
    """The looks at one source: when the last good one was, and whether we are in an outage."""

    def __init__(self, name: str) -> None:
        """`name` says in logs and metrics which it is."""
        self.name = name
        self.failures = 0
        self.seen_at = -float("inf")
        self._out = False

    def good(self, now: float) -> None:
        """A look went well. `now` is monotonic, in seconds."""
        self.seen_at = now
        if self._out:
            self._out = False
            _log.info("source is back", extra={"source": self.name})

    def failed(self, why: SourceError) -> None:
        """A look went wrong; what is known stays."""
        self.failures += 1
        if not self._out:
            self._out = True
            _log.error("source is out, what is known stays", extra={"source": self.name, "why": str(why)})

    def state(self, now: float) -> SourceState:
        """For metrics."""
        return SourceState(self.name, now - self.seen_at, self.failures)


class Source(Protocol):
    """What is kept fresh in the background."""

    health: SourceHealth

    async def refresh(self) -> None:
        """Looks for news, once and in bounded time. Never raises: bad news leave what is known."""

    async def run(self) -> None:
        """Keeps it fresh until cancelled."""


class SourceFile:
    """A small file that is read when its time, size or inode has changed.

    Read where it stands, in the event loop: such files are local and a look at an unchanged one takes microseconds.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._seen: FileStamp | None = None

    def changed(self) -> bytes | None:
        """The content where it is new, else None. Raises SourceError, and the next look reads again."""
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
        """What was read was no good: the next look reads again."""
        self._seen = None

    def _content(self) -> bytes:
        return bounded_read.read(self._path, self._max_bytes)
