"""The thread of a sink: takes a group, writes it and gives it back. Between groups it does the sink's idle work."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.audit.sinks.sink import Sink, SinkFailed

_log = logging.getLogger(__name__)

GapRecord = Callable[[int], bytes]
"""Makes the record which says how many records before it are missing."""


@dataclass(slots=True)
class Group:
    """Records that are written together."""

    records: list[bytes] = field(default_factory=list)
    waiters: list[asyncio.Future[bool]] = field(default_factory=list)
    waiting_since: float = 0.0
    """When the first of its waiting callers came, on the event loop's clock."""
    dropped: int = 0
    """Records that found the queue full since the first of this group; the next group reports them as missing."""
    reported_missing: int = 0
    """The missing records that the group reports with a gap record at its beginning."""


OnIdle = Callable[[Exception | None], None]
"""Called on the event loop with the failure of a sink that is down though nothing was written; None: it is well again.
"""

OnWritten = Callable[[Group, Exception | None], None]
"""Called on the event loop with a group, and with the failure if it could not be written."""


class SinkThread:
    """Runs one sink on one thread."""

    def __init__(self, sink: Sink, name: str, gap: GapRecord, on_written: OnWritten, on_idle: OnIdle) -> None:
        self._sink = sink
        self._name = name
        self._gap = gap
        self._on_written = on_written
        self._on_idle = on_idle
        self._down = False
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"audit-{name}", daemon=True)

    async def start(self) -> None:
        """Opens the sink and starts the thread. Raises ConfigError."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._sink.open)
        except BaseException:
            self._log_errors(self._sink.close)
            raise
        self._thread.start()

    def write(self, group: Group) -> None:
        """Has `group` written; `on_written` gets it back."""
        self._queue.put(group)

    async def stop(self, seconds: float) -> bool:
        """Has the sink closed after the last group, and waits at most `seconds`. False where that was not enough."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (group := self._wait()) is not None:
            self._report(group, self._write(group))
        self._log_errors(self._sink.close)

    def _wait(self) -> Group | None:
        while True:
            try:
                return self._queue.get(timeout=self._sink.due())
            except queue.Empty:
                self._log_errors(self._idle)

    def _idle(self) -> None:
        """Does the sink's idle work, and reports an outage."""
        try:
            self._sink.idle()
        except SinkFailed as error:
            self._down = True
            self._call(self._on_idle, error)
        else:
            if self._down:
                self._down = False
                self._call(self._on_idle, None)

    def _write(self, group: Group) -> Exception | None:
        try:
            self._sink.write(
                [self._gap(group.reported_missing), *group.records] if group.reported_missing else group.records
            )
        except (OSError, SinkFailed) as error:
            return error
        except Exception as error:  # a bug: the waiting callers must be refused, and the thread must live
            _log.exception("audit records not written", extra={"sink": self._name})
            return error
        return None

    def _report(self, group: Group, failure: Exception | None) -> None:
        """One message to the event loop for each group, if the loop still runs."""
        self._call(self._on_written, group, failure)

    def _call(self, told: Callable[..., None], *said: object) -> None:
        try:
            self._loop.call_soon_threadsafe(told, *said)
        except RuntimeError:  # the loop is closed, so no caller waits
            return

    def _log_errors(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # no caller waits for it, and the thread must go on
            _log.exception("audit sink failed at rest", extra={"sink": self._name})
