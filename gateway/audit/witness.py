"""The checkpoints of a log, read side by side with it: those in its directory and those that were kept elsewhere."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit import chain
from gateway.audit.chain import EVENT_SIGNING_KEY, Broken, Link
from gateway.audit.checkpoint import SignedCheckpoint, parse
from gateway.audit.coverage import Coverage
from gateway.audit.segments import MAX_LINE
from gateway.audit.signing import Endorsement, key_id


class Witness:
    """Follows a log record by record, with the key in force there. Raises Broken at the first that is bad.

    The log may grow meanwhile. A checkpoint is on disk before the next record is, so it is looked for when that has
    been read; only those that were there at the beginning are missed when the log ends before them.
    """

    def __init__(self, path: Path, key: Ed25519PublicKey, kept: Sequence[SignedCheckpoint] = ()) -> None:
        """Raises OSError. `kept` are checkpoints that the log must contain; those of other writers are left aside."""
        self.key = key
        self.writer = ""
        """The random name in the genesis."""
        self.good = 0
        """Checkpoints of the log that fit."""
        self.matched = 0
        """Those kept elsewhere that fit."""
        self.coverage = Coverage()
        self._candidates = kept
        self._kept: deque[SignedCheckpoint] = deque()
        self._lines = _Lines(path)
        self._next: SignedCheckpoint | None = None
        self._unreadable: Broken | None = None

    def add(self, line: bytes, link: Link) -> None:
        """The log has come to `link` with `line`, which is without its newline."""
        if link.seq == 0:
            self._begin(line)
        if EVENT_SIGNING_KEY in line:
            self.key = _successor(line, link.seq, self.key)
        else:
            self.coverage.add(line)

    def settle(self, last: Link) -> None:
        """The log goes on after `last`, or ends there: what was signed up to it is compared."""
        if self._next is None:
            self._next = self._read()
        while self._next is not None and self._next.seq <= last.seq:
            signed = self._next
            self._compare(signed, last)
            self.good += 1
            self.coverage.signed(last.seq, signed.checkpoint.promise)
            self._next = self._read()
        while self._kept and self._kept[0].seq <= last.seq:
            self._compare(self._kept.popleft(), last)
            self.matched += 1

    def rest(self, records: int, *, whole: bool) -> Broken | None:
        """What is wrong with those that a log of `records` did not come to. `whole`: it was good to its end."""
        if self._unreadable is not None or not whole:
            return self._unreadable
        due = ([self._next] if self._next is not None and self._lines.old else []) + list(self._kept)
        try:
            for signed in due:
                signed.check([self.key])
        except Broken as error:
            return error
        if due:
            return Broken(records, f"missing: a checkpoint covers the log as far as record {due[-1].seq}")
        return self.coverage.missing("when the log began") if records > 1 and not self.good else None

    def close(self) -> None:
        self._lines.close()

    def _begin(self, line: bytes) -> None:
        """Raises Broken unless the log begins, and with the key that the auditor has."""
        genesis = _content(line)
        if genesis.get("event") != "genesis":
            raise Broken(0, "not the beginning of a log")
        if genesis.get("key") != key_id(self.key):
            raise Broken(0, f"the log begins with another key, {str(genesis.get('key'))[:16]}")
        self.writer = str(genesis.get("writer"))
        mine = (signed for signed in self._candidates if signed.checkpoint.writer == self.writer)
        self._kept.extend(sorted(mine, key=lambda signed: signed.seq))

    def _compare(self, signed: SignedCheckpoint, link: Link) -> None:
        signed.check([self.key])
        found = signed.checkpoint.link
        if found.seq != link.seq:
            raise Broken(found.seq, "its checkpoint does not stand where it was written")
        if found.hash != link.hash:
            why = "not what its checkpoint was signed for: it or one since the last checkpoint was altered"
            raise Broken(link.seq, why)

    def _read(self) -> SignedCheckpoint | None:
        try:
            line = self._lines.next() if self._unreadable is None else None
            return None if line is None else parse(line)
        except Broken as error:
            self._unreadable = error
            return None


class _Lines:
    """The whole lines of a file to which others may be added meanwhile."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb") if path.exists() else None
        self._size = path.stat().st_size if self._file else 0
        self._read = 0

    @property
    def old(self) -> bool:
        """Whether the last line was there at the beginning."""
        return self._read <= self._size

    def next(self) -> bytes | None:
        """None where there is none yet. Raises Broken for one that is too long."""
        line = self._file.readline(MAX_LINE) if self._file else b""
        if len(line) == MAX_LINE:
            raise Broken(-1, "a line of the checkpoints is not a checkpoint")
        if not line.endswith(b"\n"):
            if self._file and line:
                self._file.seek(self._read)
            return None
        self._read += len(line)
        return line

    def close(self) -> None:
        if self._file:
            self._file.close()


def kept(lines: Iterable[str]) -> list[SignedCheckpoint]:
    """The checkpoints among `lines`: as they are in checkpoints.jsonl, or within those of a process log.

    Raises ValueError where there is none or one is not whole.
    """
    found = [said for line in lines if (said := _said(line)) is not None]
    try:
        made = [parse(said.encode()) for said in found]
    except Broken as error:
        raise ValueError(error.why) from None
    if not made:
        raise ValueError("there is no checkpoint in what was given")
    return made


def _said(line: str) -> str | None:
    try:
        stated = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(stated, dict):
        return None
    if "signature" in stated:
        return line
    return stated["checkpoint"] if isinstance(stated.get("checkpoint"), str) else None


def _successor(line: bytes, seq: int, by: Ed25519PublicKey) -> Ed25519PublicKey:
    try:
        return Endorsement.read(json.loads(chain.record_of(line)), by).public
    except (ValueError, RecursionError) as error:
        raise Broken(seq, f"names {error}") from None


def _content(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(chain.record_of(line))
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}
