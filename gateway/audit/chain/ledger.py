"""The log on disk: opens and recovers it, appends groups of records, rotates segments, signs checkpoints.

For one thread of one process at a time; a lock file in the directory keeps other processes out.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from gateway.audit.chain import hash_chain, recovery, segments
from gateway.audit.chain.checkpoint import FILE, Checkpoint
from gateway.audit.chain.checkpoint_bound import Promise, Uncovered
from gateway.audit.chain.file_watch import LogDirectory
from gateway.audit.chain.fsync import AppendFile, Disk
from gateway.audit.config import AuditConfig
from gateway.audit.keys.signing import PRIVATE_KEY, SIGNING_KEY, SigningKeys
from gateway.audit.record import canonical
from meshgate.runtime.config import ConfigError, reason
from meshgate.runtime.refresher import Refresher

_log = logging.getLogger(__name__)

_ANEW: Final = (
    "there was no log in audit.directory, or its beginning alone, though the keys in audit.keys are not new; if one "
    "was moved away, stop the gateway, move this one aside and that one back"
)
_SEALED: Final = 0o400
_BREATH: Final = 0.01
"""The least time between two rounds of idle work."""
_LOOK_SECONDS: Final = 60.0
"""The interval at which the directory of keys is searched for a newer key, and a failed new segment is tried again."""


class Ledger:
    """An open log. Methods may raise OSError; `append` and `checkpoint` then have changed nothing, with one exception:
    of a group that had to be written in parts, the first parts may be there.

    There is never more on disk without a checkpoint than the last one promised. Where no checkpoint can be written, the
    ledger refuses records once that much is used up.
    """

    def __init__(
        self,
        config: AuditConfig,
        disk: Disk,
        *,
        writer: str = "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the log of `writer` or begins one. An unfinished line that a crash left is moved aside.

        Raises OSError, ValueError for keys that can't be used, and BrokenChain for a log that is not as the gateway
        left it.
        """
        self._config = config
        self._disk = disk
        self._clock = clock
        self._monotonic = monotonic
        self._directory = config.directory / writer
        self._name = writer
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = disk.lock(self._directory / "lock")
        self._uncovered = Uncovered()
        self._promise = Promise.of(config.checkpoint_records, config.checkpoint_seconds)
        self._checkpoint_at = 0.0
        self._rotate_at = monotonic()
        self._late = False
        try:
            self._open()
        except BaseException:
            disk.close(self._lock)
            raise

    def _signing_keys(self) -> SigningKeys:
        try:
            return SigningKeys(self._config.keys, self._config.signing_key_seconds, self._clock)
        except (OSError, ValueError) as error:
            raise ConfigError(f"audit.keys: {reason(error)}") from error

    def _open(self) -> None:
        disk = self._disk
        new_keys = not (self._config.keys / PRIVATE_KEY).exists()
        self._keys = self._signing_keys()
        self.key_refresher = Refresher(
            "audit signing keys", self._keys.rotate, _LOOK_SECONDS, why=reason, clock=self._monotonic
        )
        self._checkpoints, covered = recovery.checkpoints(self._directory / FILE, disk, self._keys)
        found = recovery.recover(self._directory, disk, covered, self._keys, self._name)
        origin = found.origin
        self._last = found.last
        self._number = found.segment
        self._writer = origin.writer if origin else secrets.token_hex(16)
        self._key = origin.key if origin else self._keys.keys[0].key_id
        self._keys.after(self._key)  # raises where another key signed this log
        self._began = origin.time if origin else self._now()
        self._segment = AppendFile(self._path(self._number), disk)
        sealed = [path for number, path in segments.listed(self._directory) if number < self._number]
        self._log_directory = LogDirectory(self._directory, sealed)
        torn = found.torn.fields() if found.torn else {}
        fresh = self._segment.size == 0
        if fresh:
            self._began = self._now()
            self._write([self._first()])
        if (origin is None or not found.last.seq) and not new_keys:
            _log.warning("audit log begins", extra={"why": _ANEW})
        signed = None if covered is None else covered.checkpoint
        if signed is None or (signed.link, signed.promise) != (self._last, self._promise):
            self._sign()  # before more is written: uncovered records of several killed runs must not add up
        if torn or not fresh:
            self.append([self._event("opened", **torn)])
        disk.sync_directory(self._directory)

    def check_unchanged(self) -> None:
        """Raises LogFileChanged where a file of the log, or its directory, was moved or changed."""
        self._log_directory.check()
        self._segment.check_unchanged()
        self._checkpoints.check_unchanged()

    def append(self, records: Sequence[bytes]) -> None:
        """Returns when all of the canonical `records` are durable, after one sync."""
        if self._segment.size >= self._config.segment_bytes or self._of_age():
            self._rotate()
        self._extend(records)
        self.key_refresher.poll()
        full = self._uncovered.records >= self._config.checkpoint_records and not self._late
        if full or self._checkpoint_due() == 0:
            self.try_checkpoint()

    def due(self) -> float:
        """Seconds until `idle` has work to do."""
        age = self._began / 1e6 + self._config.segment_seconds - self._clock()
        waits = [self.key_refresher.due(), max(age, self._rotate_at - self._monotonic())]
        checkpoint = self._checkpoint_due()
        return max(_BREATH, min(waits if checkpoint is None else [*waits, checkpoint]))

    def idle(self) -> None:
        """Writes a checkpoint, begins a segment or looks for a new key, where one is due. Raises OSError."""
        self.key_refresher.poll()
        if self._checkpoint_due() == 0:
            self.try_checkpoint()
        if self._of_age() and self._monotonic() >= self._rotate_at:
            self._rotate_at = self._monotonic() + _LOOK_SECONDS  # if it fails
            self._rotate()

    def checkpoint(self) -> None:
        """Signs the end of the log, unless it is signed already."""
        if self._uncovered.records:
            self._sign()

    def _sign(self) -> None:
        for successor in self._keys.after(self._key):
            assert successor.endorsement is not None, "only the first has none"  # noqa: S101 - for the types
            self._put([self._event(SIGNING_KEY, **successor.endorsement.fields())])
            self._key = successor.key_id
        line = Checkpoint(self._last, self._now(), self._writer, self._promise).signed(self._keys)
        self._checkpoints.append(line)
        self._uncovered = Uncovered()
        self._late = False
        # The process log leaves this machine: it shows even that a log was cut together with its checkpoints.
        _log.info("audit checkpoint", extra={"checkpoint": line.decode().rstrip()})

    def try_checkpoint(self) -> None:
        """Does the same, but never raises: what is on disk stays valid, and a failed checkpoint is only late."""
        try:
            self.checkpoint()
        except OSError as error:
            if not self._late:  # logged once, until one is written
                _log.error("audit checkpoint not written", extra={"why": error.strerror})
            self._late = True
            self._checkpoint_at = self._monotonic() + self._config.checkpoint_seconds

    def close(self) -> None:
        """Writes the record of an orderly end and its checkpoint, if all before it has one and no file was changed."""
        try:
            self.check_unchanged()
            self.checkpoint()
            self._write([self._event("closed")])
            self.checkpoint()
        finally:
            self._segment.close()
            self._checkpoints.close()
            self._disk.close(self._lock)

    def _checkpoint_due(self) -> float | None:
        return max(0.0, self._checkpoint_at - self._monotonic()) if self._uncovered.records else None

    def _of_age(self) -> bool:
        return self._clock() - self._began / 1e6 >= self._config.segment_seconds

    def _extend(self, records: Sequence[bytes]) -> None:
        """Writes `records` with no more uncovered than was promised, in parts where necessary."""
        added = Uncovered.of(records)
        if len(records) > 1 and not added.within(self._promise):
            middle = len(records) // 2
            self._extend(records[:middle])
            self._extend(records[middle:])
            return
        joined = replace(self._uncovered)
        joined.join(added)
        if not joined.within(self._promise):
            self.checkpoint()
        self._write(records, added)

    def _write(self, records: Sequence[bytes], uncovered: Uncovered | None = None) -> None:
        self._put(records)
        if not self._uncovered.records:
            self._checkpoint_at = self._monotonic() + self._config.checkpoint_seconds
        self._uncovered.join(uncovered or Uncovered.of(records))

    def _put(self, records: Sequence[bytes]) -> None:
        last = self._last
        lines = []
        for record in records:
            line, last = hash_chain.link(record, last)
            lines.append(line)
        self._segment.append(b"".join(lines))
        self._last = last

    def _rotate(self) -> None:
        """Seals this segment and begins the next. Where that fails, or a checkpoint of its end does, this segment stays
        open.
        """
        self.try_checkpoint()
        if self._uncovered.records:
            return
        following = AppendFile(self._path(self._number + 1), self._disk)
        previous = self._segment
        try:
            following.cut(0)  # an earlier try may have left bytes
            self._disk.sync_directory(self._directory)
            self._segment = following
            self._write([self._first()])
        except OSError:
            self._segment = previous
            following.close()
            raise
        self._number += 1
        self._began = self._now()
        previous.path.chmod(_SEALED)
        previous.close()
        self._log_directory.seal(previous.path)

    def _first(self) -> bytes:
        """The first record of a log or a segment."""
        who = {"key": self._key, "version": 1, "writer": self._writer, **({"name": self._name} if self._name else {})}
        if self._last == hash_chain.BEFORE_GENESIS:
            return self._event("genesis", **who)
        return self._event("segment", previous=self._last.hash.hex(), **who)

    def _event(self, event: str, **fields: Any) -> bytes:
        return canonical({"event": event, "time": self._now(), **fields})

    def _path(self, number: int) -> Path:
        return self._directory / segments.name(number)

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)
