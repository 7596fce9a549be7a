"""The interface of a sink: a log on disk, a stream, a collector, standard output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class SinkFailed(Exception):
    """The sink does not have the records; the same ones may succeed the next time. The text is for the process log."""


class SinkRefused(SinkFailed):
    """The sink refuses the records for good: to try the same ones again is of no use."""


class Sink(Protocol):
    """Takes groups of canonical records. All methods run on one thread, that of its queue, and may block it."""

    def open(self) -> None:
        """Opens the sink, before all else. Raises ConfigError for a sink that can't be used as configured."""

    def write(self, records: Sequence[bytes]) -> None:
        """Returns when the sink has all of `records` as durably as it ever will. Raises SinkFailed or OSError.

        Bounded in time wherever the operating system allows a bound.
        """

    def due(self) -> float | None:
        """Seconds until `idle` should be called, if nothing is written before, or None."""

    def idle(self) -> None:
        """Does the work that has become due. Raises only SinkFailed, where the sink is down though nothing was written:
        no caller waits for this work.
        """

    def close(self) -> None:
        """Closes the sink, after all else, also where `open` failed."""
