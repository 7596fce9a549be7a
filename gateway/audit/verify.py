"""Verification, offline: reads a log from its genesis to its end and names the first record that is not as written.

One pass over records and checkpoints side by side, constant memory; a line is hashed as it stands and only those that
name a signing key are parsed. May run beside the gateway: what of the checkpoints is there at the beginning is what
counts, so that the log is never behind them, and an unfinished last line counts as not yet written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit import chain, segments
from gateway.audit.chain import EVENT_SIGNING_KEY, ORIGIN, Broken
from gateway.audit.checkpoint import FILE, SignedCheckpoint, parse
from gateway.audit.search import content
from gateway.audit.signing import Endorsement, key_id


@dataclass(slots=True)
class Report:
    """What was found, as far as it was read."""

    writer: str = ""
    """The name of the writer's directory; empty for a log that is not divided."""
    records: int = 0
    """Good ones, from the first."""
    segments: int = 0
    checkpoints: int = 0
    """Good ones."""
    covered: int = -1
    """The number of the last good record that a checkpoint covers; those after it the chain covers alone."""
    unfinished_bytes: int = 0
    """Of a last line that is still being written or was torn by a crash."""
    key: str = ""
    """The id of the key that signs at the end."""
    broken: Broken | None = None
    """The first bad record, if there is one."""

    @property
    def uncovered(self) -> int:
        """Good records after the last checkpoint."""
        return self.records - 1 - self.covered


def verify_all(root: Path, key: Ed25519PublicKey) -> list[Report]:
    """A report on each writer's log under `root`. Raises OSError, as where there is none."""
    reports = []
    for name, directory in segments.writers(root):
        report = verify(directory, key)
        report.writer = name
        if name and report.records:
            report.broken = _first(_misplaced(directory, name), report.broken)
        reports.append(report)
    return reports


def verify(directory: Path, key: Ed25519PublicKey) -> Report:
    """Verifies the log in `directory` against its first `key`, which should come from elsewhere. Raises OSError."""
    checkpoints = _Checkpoints(directory / FILE, key)
    report = Report()
    try:
        last = ORIGIN
        for line in _lines(directory, report):
            last = chain.after(line, last)
            checkpoints.pass_by(line, last)
            report.records += 1
    except Broken as error:
        report.broken = error
    report.broken = _first(report.broken, checkpoints.rest(report.records, whole=report.broken is None))
    report.checkpoints, report.covered, report.key = checkpoints.good, checkpoints.covered, key_id(checkpoints.key)
    return report


def _misplaced(directory: Path, name: str) -> Broken | None:
    """Whether a log, whose genesis is good, is that of the writer in whose place it is."""
    genesis = next(segments.lines(segments.listed(directory)[0][1]))
    found = content(genesis[:-1]).get("name", "")
    return None if found == name else Broken(0, f"the log of another writer, {found or 'one without a name'}")


class _Checkpoints:
    """Reads the checkpoints as the log goes past them, with the key in force there."""

    def __init__(self, path: Path, key: Ed25519PublicKey) -> None:
        self.key = key
        self.good = 0
        self.covered = -1
        self._unreadable: Broken | None = None
        self._lines = _signed(path)
        self._next = self._read()

    def pass_by(self, line: bytes, link: chain.Link) -> None:
        """The log has come to `link` with `line`. Raises Broken where a checkpoint says otherwise."""
        if EVENT_SIGNING_KEY in line:
            self.key = _successor(line, link.seq, self.key)
        while self._next is not None and self._next.checkpoint.link.seq <= link.seq:
            self._compare(self._next, link)
            self._next = self._read()

    def rest(self, records: int, *, whole: bool) -> Broken | None:
        """What is wrong with those that the log did not come to. `whole`: it was good to its end."""
        if self._unreadable is not None or self._next is None or not whole:
            return self._unreadable
        try:
            self._next.check([self.key])
        except Broken as error:
            return error
        reached = self._next.checkpoint.link.seq
        return Broken(records, f"missing: a checkpoint covers the log as far as record {reached}")

    def _compare(self, signed: SignedCheckpoint, link: chain.Link) -> None:
        signed.check([self.key])
        found = signed.checkpoint.link
        if found.seq != link.seq:
            raise Broken(found.seq, "its checkpoint does not stand where it was written")
        if found.hash != link.hash:
            why = "not what its checkpoint was signed for: it or one since the last checkpoint was altered"
            raise Broken(link.seq, why)
        self.good += 1
        self.covered = link.seq

    def _read(self) -> SignedCheckpoint | None:
        try:
            line = next(self._lines, None)
            return None if line is None else parse(line)
        except Broken as error:
            self._unreadable = error
            return None


def _successor(line: bytes, seq: int, by: Ed25519PublicKey) -> Ed25519PublicKey:
    try:
        return Endorsement.read(json.loads(chain.record_of(line)), by).public
    except (ValueError, RecursionError) as error:
        raise Broken(seq, f"names {error}") from None


def _signed(path: Path) -> Iterator[bytes]:
    """The whole lines that are there now."""
    left = path.stat().st_size if path.exists() else 0
    if not left:
        return
    for line in segments.lines(path):
        left -= len(line)
        if left < 0:
            return
        if line.endswith(b"\n"):
            yield line


def _lines(directory: Path, report: Report) -> Iterator[bytes]:
    """The lines of all segments without their newlines, less an unfinished last one."""
    listed = segments.listed(directory)
    for _, path in listed:
        report.segments += 1
        for line in segments.lines(path):
            if line.endswith(b"\n"):
                yield line[:-1]
            elif path == listed[-1][1]:
                report.unfinished_bytes += len(line)
            else:
                yield line


def _first(one: Broken | None, other: Broken | None) -> Broken | None:
    found = [broken for broken in (one, other) if broken is not None]
    return min(found, key=lambda broken: broken.seq, default=None)
