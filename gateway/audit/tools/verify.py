"""Verification, offline: reads a log from its genesis to its end and names the first record that is not as written.

One pass over records and checkpoints side by side, constant memory; a line is hashed as it stands, and held to the one
way in which the gateway writes it; few are parsed for that. May run beside the gateway: see
gateway.audit.chain.external_checkpoints; an unfinished last line counts as not yet written.
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
    promised: bool = False
    """Whether the last checkpoint says how many that may be. Those of old don't, and then nothing tells one that was
    deleted from one that was not due."""
    matched: int = 0
    """Checkpoints kept elsewhere that the log contains."""
    origin: str = ""
    """The writer's random name, from the genesis: checkpoints bear it."""
    unfinished_bytes: int = 0
    """Of a last line that is still being written or was torn by a crash."""
    key: str = ""
    """The id of the key that signs at the end."""
    broken: BrokenChain | None = None
    """The first bad record, if there is one."""

    @property
    def uncovered(self) -> int:
        """Good records after the last checkpoint."""
        return self.records - 1 - self.covered


def verify_all(root: Path, key: Ed25519PublicKey, kept: Sequence[SignedCheckpoint] = ()) -> list[Report]:
    """A report on each writer's log under `root`, and on each that `kept` tells of and is not there.

    Raises OSError, as where there is none.
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

    Of `kept`, checkpoints from elsewhere, it must contain those of its writer.
    """
    report = Report()
    with closing(ExternalCheckpoints(directory / FILE, key, kept)) as witness:
        try:
            _follow(directory, witness, report)
        except BrokenChain as error:
            report.broken = error
            report.records = min(report.records, max(0, error.seq))
        report.broken = _first(report.broken, witness.rest(report.records, whole=report.broken is None))
    coverage = witness.coverage
    report.checkpoints, report.covered, report.promised = witness.good, coverage.seq, coverage.promise is not None
    report.matched, report.origin, report.key = witness.matched, witness.writer, key_id(witness.key)
    return report


def _follow(directory: Path, witness: ExternalCheckpoints, report: Report) -> None:
    last = BEFORE_GENESIS
    listed = segments.listed(directory)
    newest = max((number for number, path in listed if path.stat().st_size), default=0)
    for expected, (number, path) in enumerate(listed, 1):
        if number != expected:
            raise BrokenChain(last.seq + 1, f"missing: {segments.name(expected)}")
        report.segments += 1
        last = _segment(_lines(path, report, newest=number >= newest), last, witness, report)
        if report.unfinished_bytes:
            break
    witness.settle(last)


def _segment(lines: Iterator[bytes], last: Link, witness: ExternalCheckpoints, report: Report) -> Link:
    """Where the log stands after a segment that goes on from `last`."""
    continues: Link | None = last
    for line in lines:
        witness.settle(last)
        last = hash_chain.after(line, last)
        witness.add(line, last, continues=continues)
        continues = None
        report.records += 1
    return last


def _gone(reports: Sequence[Report], kept: Sequence[SignedCheckpoint]) -> Iterator[Report]:
    """Writers that checkpoints from elsewhere tell of, and whose logs are not there or begin otherwise."""
    furthest = {signed.checkpoint.writer: signed.seq for signed in sorted(kept, key=lambda signed: signed.seq)}
    for writer in furthest.keys() - {report.origin for report in reports}:
        why = f"missing: the log of the writer {writer[:32]}, which a checkpoint covers as far as record"
        yield Report(writer=writer[:32], broken=BrokenChain(0, f"{why} {furthest[writer]}"))


def _misplaced(directory: Path, name: str, logs: Sequence[tuple[str, Path]]) -> BrokenChain | None:
    """Whether a log, whose genesis is good, is that of the writer in whose place it is. One that is looked at alone may
    have any name.
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
    """The lines of a segment without their newlines, less an unfinished last one. `newest`: no later one has any.

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
