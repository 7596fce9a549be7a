"""A log never exceeds the bound of its last checkpoint, whatever fails and whenever the process dies."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import record
from gateway.audit.chain import hash_chain
from gateway.audit.chain.checkpoint import FILE, Checkpoint
from gateway.audit.chain.checkpoint_bound import Promise, Uncovered, time_of
from gateway.audit.chain.hash_chain import BrokenChain, Link
from gateway.audit.chain.ledger import Ledger
from gateway.audit.keys.signing import SigningKeys
from gateway.audit.tools import verify
from gateway.audit.tools.verify import Report
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import LONG, Clock, FastDisk

SECOND = 1_000_000
NOW = 1_800_000_000 * SECOND


class NoCheckpoints(FastDisk):
    """While `full`, checkpoints find no room; records do."""

    def __init__(self) -> None:
        self.full = False
        self._checkpoints = -1

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        if path.name == FILE:
            self._checkpoints = descriptor
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        if self.full and descriptor == self._checkpoints:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, data)


def at(seconds: float) -> bytes:
    return record.encode(audit_log.record(time=NOW + int(seconds * SECOND)))


def settled() -> Clock:
    """A clock at the time of the records."""
    clock = Clock()
    clock.now = NOW / SECOND
    return clock


def test_the_time_of_every_kind_of_record_is_found() -> None:
    values: dict[type, Any] = {str: "x", int: 7, dict: {"read": 1}}
    entry: Any = {**{name: values[kind] for name, kind in record.KINDS.items()}, "event": "ended", "time": NOW}
    events: list[dict[str, Any]] = [
        {"event": "genesis", "time": NOW, "version": 1, "writer": "0f" * 16},
        {"event": "opened", "time": NOW, "torn_bytes": 3, "torn_file": "audit-00000001-0-ab.torn", "torn_sha256": "ab"},
    ]
    for content in (record.encode(entry), record.encode(audit_log.record(time=NOW)), *map(record.canonical, events)):
        assert time_of(content) == NOW
        assert time_of(hash_chain.link(content, Link(8, bytes(32)))[0][:-1]) == NOW


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"event":"ended"}',
        b'{"\\u0074ime":5,"z":{"time":1}}',
        b'{"time":1,"\\u0074ime":5}',
        b'{"time":1,"time" :5}',
        b'{"z":{"time":1},"seq":5,"\\u0074ime":5}',
        b'{"time":1.5}',
        b'{"time":-1}',
    ],
)
def test_a_time_that_might_be_another_is_none(content: bytes) -> None:
    assert time_of(hash_chain.link(content, Link(8, bytes(32)))[0][:-1]) == 0


@given(time=st.integers(0, 10**17), reserved=st.integers(0, 10**16), name=st.text("0123456789abcdef", max_size=16))
def test_the_writer_finds_the_time_that_a_verifier_finds(time: int, reserved: int, name: str) -> None:
    entry = audit_log.record(time=time, tokens_reserved=reserved, token_id=name)
    content = record.encode(entry)
    assert Uncovered.of([content]).newest == time_of(content) or time >= 10**16


def test_a_stretch_is_held_to_both_bounds() -> None:
    promise = Promise(2, 3 * SECOND)
    assert Uncovered.of([at(0), at(3)]).within(promise)
    assert not Uncovered.of([at(0), at(3.1)]).within(promise)
    assert not Uncovered.of([at(3.1), at(0)]).within(promise)
    assert not Uncovered.of([at(0), at(0), at(0)]).within(promise)


def test_where_no_checkpoint_can_be_written_records_are_refused_in_the_end(tmp_path: Path) -> None:
    disk = NoCheckpoints()
    made = audit_log.ledger(tmp_path, disk, checkpoint_seconds=10)
    disk.full = True
    for second in range(21):
        made.append([at(second)])
    with pytest.raises(OSError, match="No space"):
        made.append([at(21)])
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.uncovered) == (None, 21)
    disk.full = False
    made.append([at(22)])
    made.close()
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.uncovered) == (None, 0)


def test_so_they_are_when_they_are_many(tmp_path: Path) -> None:
    disk = NoCheckpoints()
    made = audit_log.ledger(tmp_path, disk, checkpoint_records=10)
    disk.full = True
    made.append([at(0)] * 1010)
    with pytest.raises(OSError, match="No space"):
        made.append([at(0)])
    audit_log.abandon(made)
    assert audit_log.verified(tmp_path / "audit").broken is None


def test_a_group_that_is_too_many_or_too_old_is_written_in_parts(tmp_path: Path) -> None:
    made = audit_log.ledger(tmp_path, FastDisk(), checkpoint_records=10, checkpoint_seconds=10)
    made.append([at(second / 2) for second in range(200)] + [at(100)] * 3000)
    audit_log.abandon(made)
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.records) == (None, 3201)


def test_a_segment_whose_end_cannot_be_covered_goes_on(tmp_path: Path) -> None:
    disk = NoCheckpoints()
    made = audit_log.ledger(tmp_path, disk, segment_bytes=4096)
    disk.full = True
    for _ in range(40):
        made.append([at(0)])
    assert not audit_log.segment(tmp_path / "audit", 2).exists()
    disk.full = False
    made.append([at(0)])
    assert audit_log.segment(tmp_path / "audit", 2).exists()
    made.close()
    assert audit_log.verified(tmp_path / "audit").broken is None


def test_there_is_no_goodbye_from_a_log_that_is_not_covered(tmp_path: Path) -> None:
    disk = NoCheckpoints()
    made = audit_log.ledger(tmp_path, disk)
    disk.full = True
    made.append([at(0)])
    with pytest.raises(OSError, match="No space"):
        made.close()
    assert b'"closed"' not in audit_log.segment(tmp_path / "audit").read_bytes()
    audit_log.ledger(tmp_path, FastDisk()).close()
    assert audit_log.verified(tmp_path / "audit").broken is None


def test_what_killed_runs_leave_uncovered_does_not_add_up(tmp_path: Path) -> None:
    clock = settled()
    for run in range(5):
        made = audit_log.ledger(tmp_path, FastDisk(), clock=clock, checkpoint_seconds=10)
        made.append([at(run * 15)])
        clock.advance(15)
        audit_log.abandon(made)
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.uncovered) == (None, 2)


def test_a_start_without_a_checkpoint_adds_nothing(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path)
    before = audit_log.segment(log).read_bytes()
    disk = NoCheckpoints()
    disk.full = True
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            audit_log.ledger(tmp_path, disk)
    assert audit_log.segment(log).read_bytes() == before


def test_another_cadence_is_promised_at_the_start(tmp_path: Path) -> None:
    clock = settled()
    audit_log.ledger(tmp_path, FastDisk(), clock=clock, checkpoint_seconds=1).close()
    made = audit_log.ledger(tmp_path, FastDisk(), clock=clock, checkpoint_seconds=100)
    made.append([at(0), at(199)])
    audit_log.abandon(made)
    assert audit_log.verified(tmp_path / "audit").broken is None
    audit_log.ledger(tmp_path, FastDisk()).close()


Step = tuple[str, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(-30, 30)),
        st.tuples(st.just("many"), st.integers(900, 1100)),
        st.tuples(st.just("wait"), st.integers(1, 15)),
        st.tuples(st.sampled_from(["fill", "free", "kill", "close"]), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_whatever_fails_and_whenever_it_dies_the_log_is_intact_and_goes_on(taken: list[Step]) -> None:
    with TemporaryDirectory() as home:
        disk, clock = NoCheckpoints(), Clock()
        made: Ledger | None = None
        for step in taken:
            made = take(step, made or audit_log.ledger(Path(home), disk, clock=clock, segment_bytes=65536), disk, clock)
            if made is None:
                disk.full = False
                assert audit_log.verified(Path(home) / "audit").broken is None
        if made is not None:
            audit_log.abandon(made)
        disk.full = False
        audit_log.ledger(Path(home), disk, clock=clock).close()
        report = audit_log.verified(Path(home) / "audit")
        assert (report.broken, report.uncovered) == (None, 0)


def take(step: Step, made: Ledger, disk: NoCheckpoints, clock: Clock) -> Ledger | None:
    """What is left open after `step`."""
    what, much = step
    entries = [record.encode(audit_log.record(time=int((clock.now + much) * SECOND)))]
    try:
        match what:
            case "write" | "many":
                made.append(entries if what == "write" else entries * much)
            case "wait":
                clock.advance(much)
                made.idle()
            case "fill" | "free":
                disk.full = what == "fill"
            case "kill":
                audit_log.abandon(made)
                return None
            case "close":
                made.close()
                return None
    except OSError:
        return None if what == "close" else made
    return made


def unpromised(log: Path) -> None:
    """Makes the checkpoints those that were written before there were promises."""
    keys = SigningKeys(log.parent / "keys", LONG)
    found = [json.loads(line) for line in (log / FILE).read_bytes().splitlines()]
    made = [Checkpoint(Link(of["seq"], bytes.fromhex(of["hash"])), of["time"], of["writer"]) for of in found]
    (log / FILE).write_bytes(b"".join(each.signed(keys) for each in made))


def test_a_log_of_old_is_held_to_no_promise_and_that_is_said(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path, 40)
    unpromised(log)
    audit_log.uncover(log, 11)
    report = audit_log.verified(log)
    assert (report.broken, report.uncovered, report.promised) == (None, 30, False)
    audit_log.ledger(tmp_path, FastDisk()).close()
    report = audit_log.verified(log)
    assert (report.broken, report.uncovered, report.promised) == (None, 0, True)
    unpromised(log)
    audit_log.uncover(log, 0)
    assert audit_log.verified(log).broken is not None


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, int]]:
    """A log of 26 records to which so many are added when so many lines of it have been read."""
    made = audit_log.ledger(tmp_path, FastDisk())
    made.append([at(0)] * 25)
    grows: dict[int, int] = {}
    original = verify._lines

    def lines(path: Path, report: Report, *, newest: bool) -> Iterator[bytes]:
        for read, line in enumerate(original(path, report, newest=newest)):
            made.append([at(0)] * grows.pop(read, 0))
            yield line
        for _ in range(grows.pop(-1, 0)):
            made.append([at(0)])

    monkeypatch.setattr(verify, "_lines", lines)
    yield grows
    audit_log.abandon(made)


@pytest.mark.parametrize("grows", [{3: 2000, 30: 900}, {25: 1500}, {-1: 40}, {0: 1009, -1: 12}])
def test_a_log_that_is_written_meanwhile(tmp_path: Path, growing: dict[int, int], grows: dict[int, int]) -> None:
    growing.update(grows)
    report = audit_log.verified(tmp_path / "audit")
    assert not growing
    assert report.broken is None


def test_a_checkpoint_that_was_there_at_the_beginning_is_missed(tmp_path: Path, growing: dict[int, int]) -> None:
    path = audit_log.segment(tmp_path / "audit")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3]))
    report = audit_log.verified(tmp_path / "audit")
    assert report.broken is not None
    assert report.broken.seq == 23
    with pytest.raises(BlockingIOError):
        audit_log.ledger(tmp_path)


def test_a_log_that_lost_its_checkpoints_is_not_continued(tmp_path: Path) -> None:
    made = audit_log.ledger(tmp_path, FastDisk(), clock=settled(), segment_bytes=4096)
    for _ in range(40):
        made.append([at(0)])
    audit_log.abandon(made)
    log = tmp_path / "audit"
    whole = (log / FILE).read_bytes()
    begun = json.loads(audit_log.segment(log, 3).read_bytes().splitlines()[0])["seq"]
    for kept in (0, begun - 1):  # all, and those since the end of the segment before
        (log / FILE).write_bytes(whole)
        audit_log.uncover(log, kept)
        with pytest.raises(BrokenChain, match="no checkpoint covers it"):
            audit_log.ledger(tmp_path)
