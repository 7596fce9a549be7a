"""Verification, offline: reads a log from its genesis to its end and names the first record that is not as written.

One pass, constant memory; a line is hashed as it stands and never parsed. May run beside the gateway: checkpoints are
read first, so that the log is never behind them, and an unfinished last line counts as not yet written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit import chain, segments
from gateway.audit.chain import ORIGIN, Broken
from gateway.audit.checkpoint import FILE, Checkpoint, check


@dataclass(slots=True)
class Report:
    """What was found, as far as it was read."""

    records: int = 0
    """Good ones, from the first."""
    segments: int = 0
    checkpoints: int = 0
    covered: int = -1
    """The number of the last good record that a checkpoint covers; those after it the chain covers alone."""
    unfinished_bytes: int = 0
    """Of a last line that is still being written or was torn by a crash."""
    broken: Broken | None = None
    """The first bad record, if there is one."""

    @property
    def uncovered(self) -> int:
        """Good records after the last checkpoint."""
        return self.records - 1 - self.covered


@dataclass(slots=True)
class _Signed:
    """The checkpoints by record, and the first that is bad."""

    by_seq: dict[int, bytes] = field(default_factory=dict)
    count: int = 0
    broken: Broken | None = None


def verify(directory: Path, key: Ed25519PublicKey) -> Report:
    """Verifies the log in `directory` against `key`, which should come from elsewhere. Raises OSError."""
    signed = _checkpoints(directory / FILE, key)
    report = Report(checkpoints=signed.count)
    try:
        for link in chain.follow(_lines(directory, report), ORIGIN):
            expected = signed.by_seq.get(link.seq)
            if expected is not None:
                _compare(link.hash, expected, link.seq)
                report.covered = link.seq
            report.records += 1
    except Broken as error:
        report.broken = error
    furthest = max(signed.by_seq, default=-1)
    if report.broken is None and furthest >= report.records:
        report.broken = Broken(report.records, f"missing: a checkpoint covers the log as far as record {furthest}")
    report.broken = _first(report.broken, signed.broken)
    return report


def _compare(found: bytes, signed: bytes, seq: int) -> None:
    if found != signed:
        raise Broken(seq, "not what its checkpoint was signed for: it or one since the last checkpoint was altered")


def _checkpoints(path: Path, key: Ed25519PublicKey) -> _Signed:
    signed = _Signed()
    if not path.exists():
        return signed
    try:
        for line in segments.lines(path):
            if line.endswith(b"\n"):
                made: Checkpoint = check(line, key)
                signed.by_seq[made.link.seq] = made.link.hash
                signed.count += 1
    except Broken as error:
        signed.broken = error
    return signed


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
