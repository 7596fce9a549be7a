"""The log on disk: opens and recovers it, appends groups of records, rotates segments, signs checkpoints.

For one thread of one process at a time; a lock file in the directory sees to the second.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from gateway import keyfile
from gateway.audit import chain, recovery, segments
from gateway.audit.checkpoint import FILE, Checkpoint, Signer
from gateway.audit.config import AuditConfig
from gateway.audit.digest import KEY_BYTES
from gateway.audit.disk import AppendFile, Disk
from gateway.audit.record import canonical

_log = logging.getLogger(__name__)

HMAC_KEY = "audit-hmac.key"
_SEALED = 0o400


class Ledger:
    """An open log. Methods may raise OSError; `append` and `checkpoint` then have changed nothing."""

    def __init__(
        self,
        config: AuditConfig,
        disk: Disk,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the log in `config.directory` or begins one. What a crash left half-written is moved aside.

        Raises OSError, ValueError for keys that can't be used, and chain.Broken for a log that is not as it was left.
        """
        self._config = config
        self._disk = disk
        self._clock = clock
        self._monotonic = monotonic
        config.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = disk.lock(config.directory / "lock")
        self._uncovered = 0
        self._checkpoint_at = 0.0
        self._late = False
        try:
            self._open()
        except BaseException:
            disk.close(self._lock)
            raise

    def _open(self) -> None:
        config, disk = self._config, self._disk
        self._signer = Signer(config.keys)
        self.hmac_key = keyfile.obtain(config.keys / HMAC_KEY, lambda: secrets.token_bytes(KEY_BYTES))
        if len(self.hmac_key) != KEY_BYTES:
            raise ValueError(f"{HMAC_KEY} is not {KEY_BYTES} bytes")
        self._checkpoints, covered = recovery.checkpoints(config.directory / FILE, disk, self._signer.public_key)
        found = recovery.recover(config.directory, disk, covered)
        self._last = found.last
        self._number = found.segment
        self._writer = found.writer or secrets.token_hex(16)
        self._segment = AppendFile(config.directory / segments.name(self._number), disk)
        torn = found.torn.fields() if found.torn else {}
        self._begin(fresh=self._segment.size == 0, torn=torn)
        disk.sync_directory(config.directory)

    def _begin(self, *, fresh: bool, torn: dict[str, Any]) -> None:
        """The first record of this run: of a new log, of a new segment, or of one that goes on."""
        if not fresh:
            self.append([self._event("opened", **torn)])
            return
        self._write([self._first()])
        if torn:
            self._write([self._event("opened", **torn)])

    def append(self, records: Sequence[bytes]) -> None:
        """Returns when all of the canonical `records` are on disk, after one sync."""
        if self._segment.size >= self._config.segment_bytes:
            self._rotate()
        self._write(records)
        full = self._uncovered >= self._config.checkpoint_records and not self._late
        if full or self.due() == 0:
            self.try_checkpoint()

    def due(self) -> float | None:
        """Seconds until a checkpoint should be made, or None when the last one covers all."""
        return max(0.0, self._checkpoint_at - self._monotonic()) if self._uncovered else None

    def checkpoint(self) -> None:
        """Signs where the log stands, unless that is signed already."""
        if not self._uncovered:
            return
        made = Checkpoint(self._last, self._now(), self._writer)
        line = self._signer.sign(made)
        self._checkpoints.append(line)
        self._uncovered = 0
        self._late = False
        # The process log leaves this machine: with it, even a log cut together with its checkpoints is found out.
        _log.info("audit checkpoint", extra={"checkpoint": line.decode().rstrip()})

    def try_checkpoint(self) -> None:
        """The same, but never raises: the records are on disk and stay valid, so one that fails is only late."""
        try:
            self.checkpoint()
        except OSError as error:
            self._late = True
            self._checkpoint_at = self._monotonic() + self._config.checkpoint_seconds
            _log.error("audit checkpoint not written", extra={"why": error.strerror})

    def close(self) -> None:
        """Writes the record of an orderly end and its checkpoint."""
        try:
            self.append([self._event("closed")])
            self.checkpoint()
        finally:
            self._segment.close()
            self._checkpoints.close()
            self._disk.close(self._lock)

    def _write(self, records: Sequence[bytes]) -> None:
        last = self._last
        lines = []
        for record in records:
            line, last = chain.link(record, last)
            lines.append(line)
        self._segment.append(b"".join(lines))
        self._last = last
        if not self._uncovered:
            self._checkpoint_at = self._monotonic() + self._config.checkpoint_seconds
        self._uncovered += len(lines)

    def _rotate(self) -> None:
        """Seals this segment and begins the next. Where that fails, this one stays the one in use."""
        self.try_checkpoint()
        following = AppendFile(self._config.directory / segments.name(self._number + 1), self._disk)
        previous = self._segment
        try:
            following.cut(0)  # an earlier try may have left something
            self._disk.sync_directory(self._config.directory)
            self._segment = following
            self._write([self._first()])
        except OSError:
            self._segment = previous
            following.close()
            raise
        self._number += 1
        previous.path.chmod(_SEALED)
        previous.close()

    def _first(self) -> bytes:
        """What begins a log or a segment."""
        who = {"key": self._signer.key_id, "writer": self._writer, "version": 1}
        if self._last == chain.ORIGIN:
            return self._event("genesis", **who)
        return self._event("segment", previous=self._last.hash.hex(), **who)

    def _event(self, event: str, **fields: Any) -> bytes:
        return canonical({"event": event, "time": self._now(), **fields})

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)
