"""The audit log of one process: each sink has a queue of its own, so that one that hangs delays no other.

A record is encoded once and the sinks share its bytes. A call waits for the required sinks and for no other. Where one
of them does not have the record in time, the call is refused. Another sink may then have the record of a success that
the caller never saw: an operator can explain a record too many, and not one too few.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from gateway.audit import record as records
from gateway.audit.chain.fsync import Disk
from gateway.audit.config import (
    AuditConfig,
    FileSinkConfig,
    OtlpSinkConfig,
    RedisSinkConfig,
    SinkConfig,
    StdoutSinkConfig,
)
from gateway.audit.group_commit import GroupCommit
from gateway.audit.keys.content_hmac import ContentHmacs, HmacKeys
from gateway.audit.record import AuditRecord
from gateway.audit.sinks.file_sink import FileSink
from gateway.audit.sinks.otlp_sink import OtlpSink
from gateway.audit.sinks.redis_sink import RedisSink
from gateway.audit.sinks.sink import Sink
from gateway.audit.sinks.sink_queue import SinkOptions, SinkQueue
from gateway.audit.sinks.stdout_sink import StdoutSink
from meshgate import errors
from meshgate.runtime.config import ConfigError, reason
from meshgate.runtime.refresher import Refresher, SourceState

_log = logging.getLogger(__name__)

UNAVAILABLE: Final = "AUDIT_UNAVAILABLE"
"""The reason of calls that are refused because their record is not durable."""

_MAX_RECORD_BYTES: Final = 48 * 1024
_RETRY_SECONDS: Final = 1.0
_RENEW_SECONDS: Final = 60.0


Enqueued = Sequence[asyncio.Future[bool] | None]
"""An enqueued record: for each required sink, whether it got the record in time; None is never."""


class AuditLog:
    """All sinks of one process. `commit` returns when the required ones have the record, and otherwise refuses the
    call.
    """

    def __init__(
        self,
        config: AuditConfig,
        *,
        writer: str = "",
        disk: Disk | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`writer` names this process's part of the log, such as `worker-0`, where several processes share the
        directory.
        """
        self._config = config
        self._writer = writer
        self._disk = disk or Disk()
        self._clock = clock
        self._monotonic = monotonic
        self._keys: HmacKeys | None = None
        self._key_refresher: Refresher | None = None
        self._file: FileSink | None = None
        self.group_commit = GroupCommit(config.gather_seconds, monotonic)
        """The calls in flight."""
        self.queues: Sequence[SinkQueue] = [self._queue(sink) for sink in config.sinks]
        """One for each sink, with its numbers of waiting and lost records."""
        self._required = [queue for queue in self.queues if queue.options.required]
        self._others = [queue for queue in self.queues if not queue.options.required]

    @property
    def healthy(self) -> bool:
        """Whether the last write of every required sink succeeded."""
        return all(queue.healthy for queue in self._required)

    async def start(self) -> None:
        """Opens all sinks, recovering what a crash left. Raises ConfigError when one is in use, unusable or altered."""
        self._loop = asyncio.get_running_loop()
        try:
            for queue in self.queues:
                await queue.start()
            self._keys = await asyncio.to_thread(
                HmacKeys, self._config.keys, self._config.digest_key_seconds, self._clock
            )
        except (OSError, ValueError) as error:
            await self.stop()
            raise ConfigError(f"audit.keys: {reason(error)}") from error
        except BaseException:
            await self.stop()
            raise
        self._key_refresher = Refresher(
            "audit HMAC keys", partial(asyncio.to_thread, self._keys.rotate), _RENEW_SECONDS, why=reason
        )
        self._key_refresher.start()

    async def commit(self, record: AuditRecord) -> None:
        """Returns when every required sink has `record`. When the caller is cancelled, the record is still written.

        Raises Unavailable (AUDIT_UNAVAILABLE) when a sink refuses, its queue is full or its time is up.
        """
        self.group_commit.begin()
        try:
            await self.wait_durable(self.enqueue(record))
        finally:
            self.group_commit.end()

    def enqueue(self, record: AuditRecord) -> Enqueued:
        """Puts a record into every sink's queue, in order with all others; `wait_durable` waits for it. Never fails."""
        encoded = _encoded(record)
        if encoded is None:
            return (None,)
        for queue in self._others:
            queue.enqueue_nowait(encoded)
        return [queue.enqueue(encoded) for queue in self._required]

    async def wait_durable(self, enqueued: Enqueued) -> None:
        """Returns when every required sink has the record that `enqueue` returned. Raises as `commit` does."""
        for done in enqueued:
            if done is None or not await done:
                raise _unavailable()

    def enqueue_nowait(self, record: AuditRecord) -> None:
        """Enqueues a record for which no caller waits, in order with all others. Never fails: a lost one is counted.

        It is written with the next record for which a caller waits, and by itself after some milliseconds.
        """
        encoded = _encoded(record)
        if encoded is not None:
            for queue in self.queues:
                queue.enqueue_nowait(encoded)

    def log_event(self, **fields: Any) -> None:
        """Enqueues a record that is not of one call, of strings and integers: at least `event` and `time`. No caller
        waits.
        """
        encoded = records.canonical(fields)
        for queue in self.queues:
            queue.enqueue_nowait(encoded)

    def content_hmacs(self) -> ContentHmacs:
        """New HMACs for the messages of one call, and the id of their key. Only after `start`."""
        if self._keys is None:
            raise RuntimeError("the audit log is not open")
        return self._keys.hmacs()

    def refreshed(self) -> list[SourceState]:
        """The freshness of the HMAC keys and of the signing keys, for metrics."""
        signing = None if self._file is None else self._file.key_refresher
        return [refresher.state() for refresher in (self._key_refresher, signing) if refresher is not None]

    async def stop(self) -> None:
        """Writes the waiting records and closes all sinks, each within its time."""
        if self._key_refresher is not None:
            await self._key_refresher.stop()
        await asyncio.gather(*(queue.stop() for queue in self.queues))

    def _queue(self, config: SinkConfig) -> SinkQueue:
        options = SinkOptions(
            name=config.kind,
            required=config.required,
            timeout_seconds=config.timeout_seconds or self._config.timeout_seconds,
            queue_records=config.queue_records or self._config.queue_records,
        )
        return SinkQueue(self._sink(config, options.timeout_seconds), options, self._gap, self.group_commit.delay)

    def _sink(self, config: SinkConfig, timeout_seconds: float) -> Sink:
        match config:
            case RedisSinkConfig():
                return RedisSink(config, self._writer, timeout_seconds)
            case OtlpSinkConfig():
                return OtlpSink(config, self._writer, timeout_seconds)
            case StdoutSinkConfig():
                return StdoutSink(timeout_seconds)
            case FileSinkConfig():
                self._file = FileSink(
                    self._config, self._writer, self._disk, clock=self._clock, monotonic=self._monotonic
                )
                return self._file

    def _gap(self, lost: int) -> bytes:
        return records.canonical({"event": "gap", "missing": lost, "time": int(self._clock() * 1_000_000)})


def _encoded(record: AuditRecord) -> bytes | None:
    """The record's bytes, or None, which is logged, where it has no encoding: one bad record harms no other."""
    try:
        encoded = records.encode(record)
    except (TypeError, ValueError):
        _log.exception("audit record has no encoding", extra={"request_id": record.get("request_id")})
        return None
    return encoded if len(encoded) <= _MAX_RECORD_BYTES else None


def _unavailable() -> errors.Unavailable:
    return errors.Unavailable("the audit log can't be written", reason=UNAVAILABLE, retry_after=_RETRY_SECONDS)
