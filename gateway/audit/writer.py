"""Group commit: callers wait on the event loop, one thread writes for all who wait and syncs once.

No delay is added to gather a group: while one is being synced, the next gathers. So one caller alone pays one sync, and
a thousand at once pay one each thousand. When a write fails, those who wait for it are told Unavailable, and the file
is as if it had not been tried; each later group tries anew, so that service returns with the disk.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.audit import record
from gateway.audit.chain import Broken
from gateway.audit.config import AuditConfig
from gateway.audit.digest import ContentMac
from gateway.audit.disk import Disk
from gateway.audit.ledger import Ledger
from gateway.audit.record import AuditRecord
from meshgate import errors
from meshgate.runtime.config import ConfigError

_log = logging.getLogger(__name__)

_MAX_GROUP: Final = 4096
_MAX_RECORD_BYTES: Final = 48 * 1024
_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    record: AuditRecord
    done: asyncio.Future[None]


class AuditLog:
    """The stage: `commit` returns when the record is on disk, and refuses when it can't be."""

    def __init__(
        self,
        config: AuditConfig,
        *,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._disk = disk or Disk()
        self._clock = clock
        self._monotonic = monotonic
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting = 0
        self._healthy = False
        self._ledger: Ledger | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def healthy(self) -> bool:
        """Whether the last write succeeded."""
        return self._healthy

    async def start(self) -> None:
        """Opens the log, recovering what a crash left. Raises ConfigError when it is in use, unusable or altered."""
        self._loop = asyncio.get_running_loop()
        try:
            ledger = await asyncio.to_thread(self._open)
        except BlockingIOError:
            raise ConfigError("audit.directory: another process writes to this audit log") from None
        except Broken as error:
            raise ConfigError(f"audit.directory: the audit log is not as it was left: {error}") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"audit: can't be opened: {error}") from error
        self._ledger = ledger
        self._healthy = True
        self._thread = threading.Thread(target=self._run, args=(ledger,), name="audit-writer", daemon=True)
        self._thread.start()

    async def commit(self, record: AuditRecord) -> None:
        """Returns when `record` is on disk. A caller that is cancelled leaves its record behind to be written.

        Raises Unavailable (AUDIT_UNAVAILABLE) when the disk refuses, the queue is full or the time is up.
        """
        done = self.submit(record)
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                await done
        except TimeoutError:
            raise _unavailable() from None

    def submit(self, record: AuditRecord) -> asyncio.Future[None]:
        """Puts `record` in line and returns at once; records are written in the order of submission.

        The future ends when the record is on disk, or with Unavailable, which somebody must look at. Raises
        Unavailable when the queue is full.
        """
        if self._thread is None or self._loop is None or self._waiting >= self._config.queue_records:
            raise _unavailable()
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting += 1
        self._queue.put(_Waiting(record, done))
        return done

    def content_mac(self, direction: str) -> ContentMac:
        """A new keyed digest for the messages of one direction, `request` or `reply`. Only after `start`."""
        if self._ledger is None:
            raise RuntimeError("the audit log is not open")
        return ContentMac(self._ledger.hmac_key, direction)

    async def stop(self) -> None:
        """Writes what waits, the last checkpoint, and closes. Gives up, and says so, after a group's time."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(thread.join, self._config.timeout_seconds)
        if thread.is_alive():
            _log.error("audit log not closed in time")

    def _open(self) -> Ledger:
        return Ledger(self._config, self._disk, clock=self._clock, monotonic=self._monotonic)

    def _run(self, ledger: Ledger) -> None:
        """The thread: groups until told to stop, and checkpoints when they are due."""
        stopping = False
        while not stopping:
            group, stopping = self._gather(ledger.due())
            if group:
                self._write(ledger, group)
            elif not stopping:
                _guarded(ledger.try_checkpoint)
        _guarded(ledger.close)

    def _gather(self, patience: float | None) -> tuple[list[_Waiting], bool]:
        """All who wait now; if none does, the next to come within `patience` seconds. True when told to stop."""
        group: list[_Waiting] = []
        try:
            item = self._queue.get(timeout=patience)
            while item is not None:
                group.append(item)
                if len(group) == _MAX_GROUP:
                    break
                item = self._queue.get_nowait()
        except queue.Empty:
            return group, False
        return group, item is None

    def _write(self, ledger: Ledger, group: Sequence[_Waiting]) -> None:
        kept, refused, encoded = _encode(group)
        if encoded and not self._append(ledger, encoded):
            kept, refused = [], list(group)
        self._tell(kept, refused)

    def _append(self, ledger: Ledger, encoded: Sequence[bytes]) -> bool:
        """Whether the records are on disk."""
        try:
            ledger.append(encoded)
        except OSError as error:
            self._failed(error.strerror or "input/output error")
            return False
        except Exception:  # a bug: whoever waits must hear of it, and the thread must live
            _log.exception("audit records not written")
            self._failed("internal error")
            return False
        self._healthy = True
        return True

    def _failed(self, why: str) -> None:
        if self._healthy:
            _log.error("audit records not written", extra={"why": why})
        self._healthy = False

    def _tell(self, kept: Sequence[_Waiting], refused: Sequence[_Waiting]) -> None:
        """Wakes all of a group with one message to the loop, if it still runs."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._wake, kept, refused)
        except RuntimeError:  # the loop is closed, so nobody waits
            return

    def _wake(self, kept: Sequence[_Waiting], refused: Sequence[_Waiting]) -> None:
        self._waiting -= len(kept) + len(refused)
        for item in kept:
            if not item.done.done():
                item.done.set_result(None)
        for item in refused:
            if not item.done.done():
                item.done.set_exception(_unavailable())


def _encode(group: Sequence[_Waiting]) -> tuple[list[_Waiting], list[_Waiting], list[bytes]]:
    """Those whose record has an encoding, those whose has none, and the encodings: one bad record harms no other."""
    kept: list[_Waiting] = []
    refused: list[_Waiting] = []
    encoded: list[bytes] = []
    for item in group:
        line = _encoded(item.record)
        if line is None:
            refused.append(item)
        else:
            kept.append(item)
            encoded.append(line)
    return kept, refused, encoded


def _encoded(entry: AuditRecord) -> bytes | None:
    try:
        line = record.encode(entry)
    except (TypeError, ValueError):
        _log.exception("audit record has no encoding", extra={"request_id": entry.request_id})
        return None
    return line if len(line) <= _MAX_RECORD_BYTES else None


def _guarded(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception:  # nobody waits for it, and the thread must go on
        _log.exception("audit log: checkpoint or close failed")


def _unavailable() -> errors.Unavailable:
    return errors.Unavailable("the audit log can't be written", reason="AUDIT_UNAVAILABLE", retry_after=_RETRY_SECONDS)
