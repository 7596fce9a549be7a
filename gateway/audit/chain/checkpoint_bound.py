"""The bound of what may follow a checkpoint. Each checkpoint promises when the next one comes, and signs the promise.

So an attacker can't delete checkpoints and say that none was due. The ledger keeps its promises: it refuses records
that no checkpoint could be written for. Recovery and verification hold the log to them. A record that names the next
signing key does not count: it has a signature of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.audit.chain.hash_chain import BrokenChain

_GROUP: Final = 1000
"""Records that may be written at once when the next checkpoint is almost due."""
_PATIENCE: Final = 2
"""A multiple of checkpoint_seconds, so that a checkpoint that failed is tried again before any record is refused."""
_TIME: Final = re.compile(rb'"time":(\d{1,16})(?:,"\w+":(?:\d+|"[\w.-]*"))*\}(?:,"seq":\d+\})?', re.ASCII)
_TIME_NAME: Final = b'"time":'
_TIME_DIGITS: Final = 16
"""Digits of the microseconds between the years 2001 and 2286."""
_COVERED: Final = frozenset(("closed", "segment"))
"""The gateway writes both only where a checkpoint covers the record before."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The most that may follow a checkpoint before the next one."""

    records: int
    microseconds: int
    """The longest time between the oldest and the newest of the records."""

    @classmethod
    def of(cls, checkpoint_records: int, checkpoint_seconds: float) -> Promise:
        """The promise of a writer that signs at these numbers."""
        return cls(checkpoint_records + _GROUP, int(_PATIENCE * checkpoint_seconds * 1_000_000))


@dataclass(slots=True)
class Uncovered:
    """Records that no checkpoint covers yet."""

    records: int = 0
    oldest: int = 0
    """The time of the oldest, in microseconds since the Unix epoch."""
    newest: int = 0

    @classmethod
    def of(cls, records: Iterable[bytes]) -> Uncovered:
        """Counts records that this process made, or lines of them."""
        times = [_made_at(record) for record in records]
        return cls(len(times), min(times), max(times)) if times else cls()

    def add(self, time: int) -> None:
        """Counts one more record, made at `time`."""
        if not self.records or time < self.oldest:
            self.oldest = time
        if time > self.newest:
            self.newest = time
        self.records += 1

    def join(self, other: Uncovered) -> None:
        """Counts all of `other` too."""
        if other.records:
            self.oldest = min(self.oldest, other.oldest) if self.records else other.oldest
            self.newest = max(self.newest, other.newest)
            self.records += other.records

    def within(self, promise: Promise) -> bool:
        """Whether the records may go without a checkpoint."""
        return self.records <= promise.records and self.newest - self.oldest <= promise.microseconds


class CheckpointBound:
    """Follows a log along its checkpoints. Before the first one, and after one without a promise, nothing is
    bounded.
    """

    def __init__(self) -> None:
        self.seq = -1
        """The number of the last record that a checkpoint covers."""
        self.promise: Promise | None = None
        self._uncovered = Uncovered()

    def signed(self, seq: int, promise: Promise | None) -> None:
        """Records a valid checkpoint that covers all through `seq`."""
        self.seq, self.promise, self._uncovered = seq, promise, Uncovered()

    def add(self, seq: int, time: int, event: str = "") -> None:
        """Counts record `seq`, made at `time`, which names no signing key. `event` may be left out for the record of a
        call.

        Raises BrokenChain where a checkpoint is missing, and for a record without a time: no promise could hold for it.
        """
        dated(seq, time)
        if self.promise is None:
            return
        if self._uncovered.records and event in _COVERED:
            raise self.missing("before a segment or a run ended")
        self._uncovered.add(time)
        if not self._uncovered.within(self.promise):
            raise self.missing("as the last one promised")

    def missing(self, when: str) -> BrokenChain:
        """The error that names the first record in doubt."""
        return BrokenChain(self.seq + 1, f"no checkpoint covers it, where there was one {when}")


def dated(seq: int, time: int) -> None:
    """Raises BrokenChain for record `seq` where it has no time."""
    if not time:
        raise BrokenChain(seq, "does not say when it was made")


def _made_at(record: bytes) -> int:
    """`time_of` for a record of this process, several times faster: callers wait for two of them per call."""
    at = record.rfind(_TIME_NAME) + len(_TIME_NAME)
    digits = record[at : at + _TIME_DIGITS]
    return int(digits) if digits.isdigit() else time_of(record)


def time_of(record: bytes) -> int:
    """The time in a record, canonical or as a line without its newline. 0 for a record that is not spelled as the
    gateway writes it. No other member may follow that could state another time.
    """
    at = record.rfind(_TIME_NAME)
    found = _TIME.fullmatch(record, at) if at > 0 else None
    return int(found[1]) if found else 0
