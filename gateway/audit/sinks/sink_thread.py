"""The thread of a lane: takes a group, writes it, gives it back; between groups it does what the sink has to do."""

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
"""Makes the record which says that so many before it are missing."""


@dataclass(slots=True)
class Group:
    """Records that are written together."""

    records: list[bytes] = field(default_factory=list)
    waiters: list[asyncio.Future[bool]] = field(default_factory=list)
    born: float = 0.0
    """When the first of those who wait came, on the loop's clock."""
    dropped: int = 0
    """How many found no room since its first; the next group owns to them."""
    owned_to: int = 0
    """How many missing records it begins by owning up to."""


OnIdle = Callable[[Exception | None], None]
"""Is told on the loop that a sink which nobody wrote to is down, and why; None: that it is well again."""

OnWritten = Callable[[Group, Exception | None], None]
"""Gets a group back on the loop, and why it could not be written, if so."""


class SinkThread:
    """Runs one sink on one thread."""

    def __init__(self, sink: Sink, name: str, gap: GapRecord, landed: OnWritten, resting: OnIdle) -> None:
        self._sink = sink
        self._name = name
        self._gap = gap
        self._landed = landed
        self._resting = resting
        self._ailing = False
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"audit-{name}", daemon=True)

    async def start(self) -> None:
        """Opens the sink and begins. Raises ConfigError."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._sink.open)
        except BaseException:
            self._guarded(self._sink.close)
            raise
        self._thread.start()

    def put(self, group: Group) -> None:
        """Has `group` written; it comes back through `landed`."""
        self._queue.put(group)

    async def stop(self, seconds: float) -> bool:
        """Has the sink closed after what was put, and waits so long for that. False where it was not enough."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (group := self._wait()) is not None:
            self._tell(group, self._write(group))
        self._guarded(self._sink.close)

    def _wait(self) -> Group | None:
        while True:
            try:
                return self._queue.get(timeout=self._sink.due())
            except queue.Empty:
                self._guarded(self._rest)

    def _rest(self) -> None:
        """What the sink has to do, and whether it is down meanwhile."""
        try:
            self._sink.idle()
        except SinkFailed as error:
            self._ailing = True
            self._call(self._resting, error)
        else:
            if self._ailing:
                self._ailing = False
                self._call(self._resting, None)

    def _write(self, group: Group) -> Exception | None:
        try:
            self._sink.write([self._gap(group.owned_to), *group.records] if group.owned_to else group.records)
        except (OSError, SinkFailed) as error:
            return error
        except Exception as error:  # a bug: whoever waits must hear of it, and the thread must live
            _log.exception("audit records not written", extra={"sink": self._name})
            return error
        return None

    def _tell(self, group: Group, failure: Exception | None) -> None:
        """One message to the loop a group, if it still runs."""
        self._call(self._landed, group, failure)

    def _call(self, told: Callable[..., None], *said: object) -> None:
        try:
            self._loop.call_soon_threadsafe(told, *said)
        except RuntimeError:  # the loop is closed, so nobody waits
            return

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # nobody waits for it, and the thread must go on
            _log.exception("audit sink failed at rest", extra={"sink": self._name})
