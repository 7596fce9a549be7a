"""What takes records: a log on disk, a stream, a collector, standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class SinkFailed(Exception):
    """The records did not get there, now; the same ones may the next time. The text says why, for the process log."""


class SinkRefused(SinkFailed):
    """The records did not get there and never will: there is no use in trying the same ones again."""


class Sink(Protocol):
    """Takes groups of canonical records. All methods are called on one thread, that of its lane, and may block it."""

    def open(self) -> None:
        """Before all else. Raises ConfigError for a sink that can't be used as configured."""

    def write(self, records: Sequence[bytes]) -> None:
        """Returns when the sink has all of `records` as safely as it ever will. Raises SinkFailed or OSError.

        Bounded in time wherever the operating system lets it be.
        """

    def due(self) -> float | None:
        """Seconds until `idle` should be called, if nothing is written before, or None."""

    def idle(self) -> None:
        """Does what became due. Raises SinkFailed where the sink is down though nothing was written, and nothing else:
        there is nobody to tell.
        """

    def close(self) -> None:
        """After all else, also where `open` failed."""
