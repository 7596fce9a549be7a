"""Offline verification: reads a log from its genesis to its end and names the first record that is not as it was
written.

One pass over records and checkpoints side by side, in constant memory. A line is hashed as it stands and compared with
the gateway's spelling; few lines are parsed for that. It may run beside the gateway: see
gateway.audit.chain.external_checkpoints. An unfinished last line counts as not yet written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit.chain import canonical, hash_chain, segments
from gateway.audit.chain.checkpoint import FILE, SignedCheckpoint
from gateway.audit.chain.external_checkpoints import ExternalCheckpoints
from gateway.audit.chain.hash_chain import BEFORE_GENESIS, BrokenChain, Link
from gateway.audit.keys.signing import key_id
from gateway.audit.tools.search import content


@dataclass(slots=True)
class Report:
    """The result for one log, as far as it was read."""

    writer: str = ""
    """The name of the writer's directory; empty for a log with one writer."""
    records: int = 0
    """Valid records, from the first."""
    segments: int = 0
    checkpoints: int = 0
    """Valid checkpoints."""
    covered: int = -1
    """The number of the last valid record that a checkpoint covers; the chain alone covers those after it."""
    promised: bool = False
    """Whether the last checkpoint bounds them. Old checkpoints don't: then a deleted checkpoint and one that was not
    due look the same.
    """
    matched: int = 0
    """External checkpoints that the log contains."""
    origin: str = ""
    """The writer's random name, from the genesis; its checkpoints have it."""
    unfinished_bytes: int = 0
    """Bytes of a last line that is still being written, or that a crash cut."""
    key: str = ""
    """The id of the key that signs at the end."""
    broken: BrokenChain | None = None
    """The first bad record, if there is one."""

    @property
    def uncovered(self) -> int:
        """Valid records after the last checkpoint."""
        return self.records - 1 - self.covered


def verify_all(root: Path, key: Ed25519PublicKey, kept: Sequence[SignedCheckpoint] = ()) -> list[Report]:
    """A report for each writer's log under `root`, and for each log that `kept` names and that is missing.

    Raises OSError, also where there is no log.
    """
    reports = []
    logs = segments.writers(root)
    for name, directory in logs:
        report = verify(directory, key, kept)
        report.writer = name
        if report.records:
            report.broken = _first(_misplaced(directory, name, logs), report.broken)
        reports.append(report)
    return [*reports, *_gone(reports, kept)]


def verify(directory: Path, key: Ed25519PublicKey, kept: Sequence[SignedCheckpoint] = ()) -> Report:
    """Verifies the log in `directory` against its first `key`, which should come from elsewhere. Raises OSError.

    `kept` are external checkpoints: the log must contain those of its writer.
    """
    report = Report()
    with closing(ExternalCheckpoints(directory / FILE, key, kept)) as checkpoints:
        try:
            _follow(directory, checkpoints, report)
        except BrokenChain as error:
            report.broken = error
            report.records = min(report.records, max(0, error.seq))
        report.broken = _first(report.broken, checkpoints.rest(report.records, whole=report.broken is None))
    bound = checkpoints.bound
    report.checkpoints, report.covered, report.promised = checkpoints.good, bound.seq, bound.promise is not None
    report.matched, report.origin, report.key = checkpoints.matched, checkpoints.writer, key_id(checkpoints.key)
    return report


def _follow(directory: Path, checkpoints: ExternalCheckpoints, report: Report) -> None:
    last = BEFORE_GENESIS
    listed = segments.listed(directory)
    newest = max((number for number, path in listed if path.stat().st_size), default=0)
    for expected, (number, path) in enumerate(listed, 1):
        if number != expected:
            raise BrokenChain(last.seq + 1, f"missing: {segments.name(expected)}")
        report.segments += 1
        last = _segment(_lines(path, report, newest=number >= newest), last, checkpoints, report)
        if report.unfinished_bytes:
            break
    checkpoints.settle(last)


def _segment(lines: Iterator[bytes], last: Link, checkpoints: ExternalCheckpoints, report: Report) -> Link:
    """The end of the log after a segment that continues `last`."""
    continues: Link | None = last
    for line in lines:
        checkpoints.settle(last)
        last = hash_chain.after(line, last)
        checkpoints.add(line, last, continues=continues)
        continues = None
        report.records += 1
    return last


def _gone(reports: Sequence[Report], kept: Sequence[SignedCheckpoint]) -> Iterator[Report]:
    """The writers of external checkpoints whose logs are missing or begin otherwise."""
    furthest = {signed.checkpoint.writer: signed.seq for signed in sorted(kept, key=lambda signed: signed.seq)}
    for writer in furthest.keys() - {report.origin for report in reports}:
        why = f"missing: the log of the writer {writer[:32]}, which a checkpoint covers as far as record"
        yield Report(writer=writer[:32], broken=BrokenChain(0, f"{why} {furthest[writer]}"))


def _misplaced(directory: Path, name: str, logs: Sequence[tuple[str, Path]]) -> BrokenChain | None:
    """The error for a log, with a valid genesis, in the place of another writer's log. A single log may have
    any name.
    """
    genesis = next(segments.lines(segments.listed(directory)[0][1]))
    found = content(genesis[:-1]).get("name", "")
    alone = not name and len(logs) == 1
    return (
        None
        if alone or found == name
        else BrokenChain(0, f"the log of another writer, {found or 'one without a name'}")
    )


def _lines(path: Path, report: Report, *, newest: bool) -> Iterator[bytes]:
    """The lines of a segment without their newlines, less an unfinished last one. `newest`: no later segment has lines.

    Raises BrokenChain for a segment that is empty and not the newest.
    """
    empty = True
    for line in segments.lines(path):
        empty = False
        if line.endswith(b"\n"):
            yield line[:-1]
        elif newest and canonical.unfinished(line):
            report.unfinished_bytes = len(line)
            return
        else:
            yield line
    if empty and not newest:
        raise BrokenChain(report.records, f"missing: {path.name} is empty")


def _first(one: BrokenChain | None, other: BrokenChain | None) -> BrokenChain | None:
    found = [broken for broken in (one, other) if broken is not None]
    return min(found, key=lambda broken: broken.seq, default=None)
