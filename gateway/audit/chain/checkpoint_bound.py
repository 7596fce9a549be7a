"""How far a log may go on after a checkpoint. Each one promises when the next comes, and the promise is signed with it.

So who deletes checkpoints can't say that none was due. The ledger keeps its promises by refusing records that no
checkpoint could be written for; recovery and verification hold it to them. What a signing key says of the next is not
counted: it is signed itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.audit.chain.hash_chain import BrokenChain

_GROUP: Final = 1000
"""Records that may be written at once when the next checkpoint is all but due."""
_PATIENCE: Final = 2
"""Times checkpoint_seconds, so that one that failed is tried again before anything is refused."""
_TIME: Final = re.compile(rb'"time":(\d{1,16})(?:,"\w+":(?:\d+|"[\w.-]*"))*\}(?:,"seq":\d+\})?', re.ASCII)
_TIME_NAME: Final = b'"time":'
_TIME_DIGITS: Final = 16
"""Of the microseconds between the years 2001 and 2286."""
_COVERED: Final = frozenset(("closed", "segment"))
"""Both are written only where a checkpoint covers the record before."""


@dataclass(frozen=True, slots=True)
class Promise:
    """The most that may follow a checkpoint before the next."""

    records: int
    microseconds: int
    """Between the times of the oldest and the newest of them."""

    @classmethod
    def of(cls, checkpoint_records: int, checkpoint_seconds: float) -> Promise:
        """What a writer can promise that signs at these."""
        return cls(checkpoint_records + _GROUP, int(_PATIENCE * checkpoint_seconds * 1_000_000))


@dataclass(slots=True)
class Uncovered:
    """Records that no checkpoint covers yet."""

    records: int = 0
    oldest: int = 0
    """Their times, in microseconds since the Unix epoch."""
    newest: int = 0

    @classmethod
    def of(cls, records: Iterable[bytes]) -> Uncovered:
        """Of records that were made here, or lines of them."""
        times = [_made_at(record) for record in records]
        return cls(len(times), min(times), max(times)) if times else cls()

    def add(self, time: int) -> None:
        """One record more, made at `time`."""
        if not self.records or time < self.oldest:
            self.oldest = time
        if time > self.newest:
            self.newest = time
        self.records += 1

    def join(self, other: Uncovered) -> None:
        """All of `other` more."""
        if other.records:
            self.oldest = min(self.oldest, other.oldest) if self.records else other.oldest
            self.newest = max(self.newest, other.newest)
            self.records += other.records

    def within(self, promise: Promise) -> bool:
        """Whether they may go without a checkpoint."""
        return self.records <= promise.records and self.newest - self.oldest <= promise.microseconds


class CheckpointBound:
    """Follows a log along its checkpoints. Before the first, and after one that promises nothing, all is let pass."""

    def __init__(self) -> None:
        self.seq = -1
        """The number of the last record that a checkpoint covers."""
        self.promise: Promise | None = None
        self._stretch = Uncovered()

    def signed(self, seq: int, promise: Promise | None) -> None:
        """A good checkpoint covers all through `seq`."""
        self.seq, self.promise, self._stretch = seq, promise, Uncovered()

    def add(self, seq: int, time: int, event: str = "") -> None:
        """Record `seq`, made at `time`; it names no signing key. `event` may be left out for a call's.

        Raises BrokenChain where a checkpoint is missing, and for a record that does not say when it was made: it could
        be held to no promise.
        """
        dated(seq, time)
        if self.promise is None:
            return
        if self._stretch.records and event in _COVERED:
            raise self.missing("before a segment or a run ended")
        self._stretch.add(time)
        if not self._stretch.within(self.promise):
            raise self.missing("as the last one promised")

    def missing(self, when: str) -> BrokenChain:
        """Names the first record that is in doubt."""
        return BrokenChain(self.seq + 1, f"no checkpoint covers it, where there was one {when}")


def dated(seq: int, time: int) -> None:
    """Raises BrokenChain for record `seq` where it does not say when it was made."""
    if not time:
        raise BrokenChain(seq, "does not say when it was made")


def _made_at(record: bytes) -> int:
    """What `time_of` says of a record of ours, several times faster: two for each call, where others wait for them."""
    at = record.rfind(_TIME_NAME) + len(_TIME_NAME)
    digits = record[at : at + _TIME_DIGITS]
    return int(digits) if digits.isdigit() else time_of(record)


def time_of(record: bytes) -> int:
    """When a record, canonical or as a line without its newline, says it was made. 0 for one that is not as we write
    them: no other member may follow that could say otherwise.
    """
    at = record.rfind(_TIME_NAME)
    found = _TIME.fullmatch(record, at) if at > 0 else None
    return int(found[1]) if found else 0
