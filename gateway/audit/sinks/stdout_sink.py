"""Standard output as a sink: one line per record, for a platform that collects the output of a container."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.audit.sinks.sink import SinkFailed
from meshgate import terminal

_ATOMIC: Final = 4096
"""PIPE_BUF of Linux: a pipe that polls as writable has room for this many bytes, and takes them whole."""


class StdoutSink:
    """Writes to a descriptor, which may be a pipe without a reader. A Sink."""

    def __init__(self, timeout_seconds: float, descriptor: int | None = None) -> None:
        self._timeout = timeout_seconds
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLOUT)
        self._torn = False
        self._terminal = os.isatty(self._descriptor)

    def open(self) -> None:
        return

    def write(self, records: Sequence[bytes]) -> None:
        """Writes whole lines, where they are shorter than _ATOMIC. Raises SinkFailed and OSError."""
        deadline = time.monotonic() + self._timeout
        for piece in _pieces([self._shown(record) for record in records]):
            self._put(b"\n" + piece if self._torn else piece, deadline)  # after a torn line, whole ones again

    def due(self) -> float | None:
        return None

    def idle(self) -> None:
        return

    def close(self) -> None:
        return

    def _shown(self, record: bytes) -> bytes:
        """The same bytes; for a terminal the same JSON with its control characters escaped."""
        return terminal.json_escaped(record.decode()).encode() if self._terminal else record

    def _put(self, piece: bytes, deadline: float) -> None:
        view = memoryview(piece)
        while view:
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise SinkFailed("standard output has no reader")
            view = view[os.write(self._descriptor, view[:_ATOMIC]) :]
            self._torn = bool(view)


def _pieces(records: Sequence[bytes]) -> Iterator[bytes]:
    """The lines in pieces of at most _ATOMIC bytes; a longer line comes in several pieces."""
    held = b""
    for record in records:
        line = record + b"\n"
        if held and len(held) + len(line) > _ATOMIC:
            yield held
            held = b""
        held += line
    yield held
