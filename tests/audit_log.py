"""A small audit log for tests, and a disk that counts and fails on demand."""

from __future__ import annotations

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any, Final

from gateway.audit import AuditConfig, AuditRecord
from gateway.audit import record as records
from gateway.audit.chain.checkpoint import FILE, parse
from gateway.audit.chain.fsync import Disk
from gateway.audit.chain.ledger import Ledger
from gateway.audit.keys.signing import PUBLIC_KEY, SigningKeys, load_public_key
from gateway.audit.tools.verify import Report, verify

CHECKPOINT_EVERY: Final = 10
LONG: Final = 366 * 86_400.0


def config(directory: Path, **changes: Any) -> AuditConfig:
    """A log in `directory`/audit that signs every tenth record and, the clock standing, at no other time."""
    fields = {
        "directory": directory / "audit",
        "keys": directory / "keys",
        "checkpoint_records": CHECKPOINT_EVERY,
        "segment_seconds": LONG,
        "signing_key_seconds": LONG,  # the age of a file is real, and the clock is not
    }
    return AuditConfig.model_validate({**fields, **changes})


def record(number: int = 0, **changes: Any) -> AuditRecord:
    """The end of a call."""
    fields = {
        "time": 1_800_000_000_000_000 + number,
        "request_id": f"{number:032x}",
        "event": "ended",
        "decision": "allow",
        "status": "OK",
        "tenant": "acme",
        "subject": "bob",
        "method": "/meshgate.v1.GenerationService/Generate",
        "stages_us": {"authenticate": 3, "forward": 700},
        "input_tokens": 4,
    }
    return AuditRecord(**{**fields, **changes})


def encoded(number: int = 0) -> bytes:
    """The same as bytes."""
    return records.encode(record(number))


class Clock:
    """Both clocks of a log; they stand until they are set."""

    def __init__(self) -> None:
        self.now = time.time()
        self.elapsed = 0.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.elapsed += seconds


def ledger(
    directory: Path, disk: Disk | None = None, *, clock: Clock | None = None, writer: str = "", **changes: Any
) -> Ledger:
    """An open one whose clocks stand."""
    made, clock = config(directory, **changes), clock or Clock()
    return Ledger(made, disk or Disk(), writer=writer, clock=clock.wall, monotonic=clock.monotonic)


def written(directory: Path, count: int = 25, **changes: Any) -> Path:
    """The directory of a log of `count` calls, left without a goodbye: records 0 (genesis) to `count`."""
    made = ledger(directory, FastDisk(), **changes)
    for number in range(count):
        made.append([encoded(number)])
    abandon(made)
    return directory / "audit"


def abandon(made: Ledger) -> None:
    """What SIGKILL does: the lock and the files go, nothing is written."""
    made._segment.close()
    made._checkpoints.close()
    made._disk.close(made._lock)


def uncover(log: Path, seq: int) -> None:
    """Drops the checkpoints of record `seq` and later ones."""
    path = log / FILE
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if json.loads(line)["seq"] < seq]
    path.write_bytes(b"".join(kept))


def signed_again(log: Path, keys: SigningKeys) -> bytes:
    """The last checkpoint, signed by the newest of `keys`."""
    last = parse((log / FILE).read_bytes().splitlines()[-1])
    return last.checkpoint.signed(keys)


def segment(directory: Path, number: int = 1) -> Path:
    return directory / f"audit-{number:08d}.jsonl"


def verified(directory: Path, keys: Path | None = None) -> Report:
    """The report on `directory`, an audit directory beside its keys."""
    return verify(directory, load_public_key((keys or directory.parent / "keys") / PUBLIC_KEY))


class FastDisk(Disk):
    """Does not wait for the disk: for tests of content, not of durability."""

    def sync(self, descriptor: int) -> None:
        return

    def sync_directory(self, path: Path) -> None:
        return


class FaultyDisk(Disk):
    """Counts syncs, and while told to, runs out of space after some bytes or fails to sync."""

    def __init__(self) -> None:
        self.syncs = 0
        self.room: int | None = None
        self.sync_fails = False
        self.truncate_fails = False
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def write(self, descriptor: int, data: bytes) -> None:
        if self.room is None:
            super().write(descriptor, data)
            return
        super().write(descriptor, data[: self.room])
        if len(data) > self.room:
            self.room = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)

    def sync(self, descriptor: int) -> None:
        self.reached.set()
        self.gate.wait()
        self.syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        if self.truncate_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().truncate(descriptor, size)
