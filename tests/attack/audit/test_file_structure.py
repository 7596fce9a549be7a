"""What someone without a key can do to the files of a log as a whole: renumber, empty, swap, repeat and take away
segments and parts, hide bytes between lines, and chain on records that only the log itself writes. `verify` names it,
and a gateway does not start on it, so that its next checkpoint vouches for none of it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.audit.chain import hash_chain, segments
from gateway.audit.chain.checkpoint import FILE
from gateway.audit.chain.hash_chain import BrokenChain, Link
from gateway.audit.keys.signing import PUBLIC_KEY, SigningKeys, load_public_key
from gateway.audit.record import canonical
from gateway.audit.tools.search import UNREADABLE, Query, search
from gateway.audit.tools.verify import verify_all
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import LONG, Clock, FastDisk, FaultyDisk

Change = Callable[[Path], object]
AGE: Final = 1000.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Several segments, left in order."""
    made = audit_log.ledger(tmp_path, FastDisk(), segment_bytes=4096)
    for number in range(60):
        made.append([audit_log.encoded(number)])
    made.close()
    assert len(numbers(tmp_path / "audit")) > 4
    return tmp_path / "audit"


def numbers(log: Path) -> list[int]:
    return [number for number, _ in segments.listed(log)]


def renumber(log: Path, moves: dict[int, int]) -> None:
    for old in moves:
        audit_log.segment(log, old).rename(log / f"moving-{old}")
    for old, new in moves.items():
        (log / f"moving-{old}").rename(audit_log.segment(log, new))


def behead(log: Path) -> None:
    """The first segments are gone, and the others have their numbers."""
    audit_log.segment(log, 1).unlink()
    renumber(log, {number: number - 1 for number in numbers(log)})


def last_alone(log: Path) -> None:
    *rest, last = numbers(log)
    for number in rest:
        audit_log.segment(log, number).unlink()
    renumber(log, {last: 1})


def without(number: int) -> Change:
    def change(log: Path) -> None:
        audit_log.segment(log, number).unlink()
        renumber(log, {each: each - 1 for each in numbers(log) if each > number})

    return change


def emptied(number: int) -> Change:
    def change(log: Path) -> None:
        audit_log.segment(log, number).unlink()
        audit_log.segment(log, number).touch()

    return change


def repeated(log: Path) -> None:
    renumber(log, {number: number + 1 for number in reversed(numbers(log)) if number > 2})
    shutil.copy(audit_log.segment(log, 2), audit_log.segment(log, 3))


def joined(log: Path) -> None:
    """Two segments in one file: no record is another, but the log has other files than were written."""
    path = audit_log.segment(log, 2)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes() + audit_log.segment(log, 3).read_bytes())
    audit_log.segment(log, 3).unlink()
    renumber(log, {number: number - 1 for number in numbers(log) if number > 3})


def split(log: Path) -> None:
    renumber(log, {number: number + 1 for number in reversed(numbers(log)) if number > 1})
    lines = audit_log.segment(log, 1).read_bytes().splitlines(keepends=True)
    audit_log.segment(log, 1).chmod(0o600)
    audit_log.segment(log, 1).write_bytes(b"".join(lines[:4]))
    audit_log.segment(log, 2).write_bytes(b"".join(lines[4:]))


def gone(log: Path) -> None:
    for _, path in segments.listed(log):
        path.unlink()


FILES: Final[dict[str, Change]] = {
    "the first is gone": behead,
    "the last alone is left": last_alone,
    "one in the middle is gone": without(3),
    "one in the middle has no number": lambda log: audit_log.segment(log, 3).rename(log / "audit-3.jsonl"),
    "numbers from 2 on": lambda log: renumber(log, {number: number + 1 for number in reversed(numbers(log))}),
    "numbers from 0 on": lambda log: renumber(log, {number: number - 1 for number in numbers(log)}),
    "a gap in the numbers": lambda log: renumber(log, {numbers(log)[-1]: numbers(log)[-1] + 5}),
    "digits of another script": lambda log: audit_log.segment(log, 3).rename(log / "audit-0000000٣.jsonl"),
    "an empty one in the middle": emptied(3),
    "an empty first": emptied(1),
    "two change places": lambda log: renumber(log, {2: 3, 3: 2}),
    "the first and another change places": lambda log: renumber(log, {1: 2, 2: 1}),
    "one twice": repeated,
    "one in two files": split,
    "all are gone, and not the checkpoints": gone,
}


@pytest.mark.parametrize("change", FILES.values(), ids=FILES)
def test_segments_that_are_not_those_that_were_written(log: Path, change: Change) -> None:
    change(log)
    broken(log)
    not_started_on(log)


def test_two_segments_in_one_file(log: Path) -> None:
    """No record is another one, so that a start, which reads where old segments begin and end, may go on with it."""
    joined(log)
    broken(log)


def broken(log: Path) -> None:
    reports = verify_all(log, load_public_key(log.parent / "keys" / PUBLIC_KEY))
    assert any(report.broken for report in reports)


def not_started_on(log: Path, writer: str = "", match: str | None = None) -> None:
    signed = (log / writer / FILE).read_bytes()
    with pytest.raises(BrokenChain, match=match):
        audit_log.ledger(log.parent, FastDisk(), writer=writer)
    assert (log / writer / FILE).read_bytes() == signed


def forged(log: Path, *contents: dict[str, Any] | bytes, segment: int = 1) -> None:
    """Cuts the log at its last checkpoint, and chains on `contents`."""
    signed = json.loads((log / FILE).read_bytes().splitlines()[-1])
    path = audit_log.segment(log)
    lines = path.read_bytes().splitlines(keepends=True)[: signed["seq"] + 1]
    last, made = Link(signed["seq"], bytes.fromhex(signed["hash"])), b""
    for content in contents:
        line, last = hash_chain.link(content if isinstance(content, bytes) else canonical(content), last)
        made += line
    if segment == 1:
        path.write_bytes(b"".join(lines) + made)
    else:
        path.write_bytes(b"".join(lines))
        audit_log.segment(log, segment).write_bytes(made)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """One segment, whose last checkpoint is at record 20 of 25. The keys went over to a second one, which signs."""
    clock = Clock()
    made = audit_log.ledger(tmp_path, FastDisk(), clock=clock, signing_key_seconds=AGE)
    for number in range(10):
        made.append([audit_log.encoded(number)])
    old = time.time() - 2 * AGE
    os.utime(tmp_path / "keys" / "audit-key.pem", (old, old))
    clock.advance(61)
    for number in range(15):
        made.append([audit_log.encoded(number)])
    audit_log.abandon(made)
    assert audit_log.verified(tmp_path / "audit").broken is None
    return tmp_path / "audit"


def genesis(log: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(audit_log.segment(log).read_bytes().splitlines()[0])["record"]
    return found


def begins(log: Path, **changes: Any) -> dict[str, Any]:
    """The record with which a segment after the last checkpoint would begin."""
    signed = json.loads((log / FILE).read_bytes().splitlines()[-1])
    said = {**genesis(log), "event": "segment", "key": signed["key"], "previous": signed["hash"], **changes}
    return {name: value for name, value in said.items() if value is not None}


BEGINNINGS: Final[dict[str, Any]] = {
    "of another writer": {"writer": "0" * 32},
    "of no writer": {"writer": None},
    "of another part": {"name": "worker-7"},
    "that goes on elsewhere": {"previous": "0" * 64},
    "that goes on in capitals": {"previous": None},
    "of a stranger's key": {"key": "0" * 16},
    "of the retired key": {"key": "retired"},
    "that is another genesis": {"event": "genesis"},
    "that is a call": {"event": "ended"},
    "that is of no time": {"time": None},
    "that is of a time of text": {"time": "1"},
}


@pytest.mark.parametrize("changes", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_segment_that_begins_otherwise(killed: Path, changes: dict[str, Any]) -> None:
    forged(killed, begins(killed), segment=2)
    assert audit_log.verified(killed).broken is None
    if changes.get("key") == "retired":
        changes = {"key": genesis(killed)["key"]}
    forged(killed, begins(killed, **changes), segment=2)
    broken(killed)
    not_started_on(killed)


@pytest.mark.parametrize("event", ["segment", "genesis"])
def test_a_segment_that_begins_within_another(killed: Path, event: str) -> None:
    forged(killed, begins(killed, event=event))
    broken(killed)
    not_started_on(killed)


def endorsement(log: Path) -> dict[str, Any]:
    lines = audit_log.segment(log).read_bytes().splitlines()
    found: dict[str, Any] = json.loads(next(line for line in lines if b'"signing_key"' in line))["record"]
    return found


NAMING: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "the key in force, unsigned": lambda said: {"event": "signing_key", "time": said["time"], "key": said["key"]},
    "the endorsement again": lambda said: said,
    "something else too": lambda said: {**said, "subject": "eve"},
    "a stranger": lambda said: {**said, "key": "0" * 16},
    "nothing": lambda said: {"event": "signing_key", "time": said["time"]},
    "no time": lambda said: {name: value for name, value in said.items() if name != "time"},
    "a time of text": lambda said: {**said, "time": str(said["time"])},
}


@pytest.mark.parametrize("change", NAMING.values(), ids=NAMING)
@pytest.mark.parametrize("count", [1, 3000])
def test_records_that_name_a_signing_key(killed: Path, change: Any, count: int) -> None:
    """They count towards no promise, so that any number of them may follow a checkpoint where they are believed."""
    forged(killed, *[change(endorsement(killed))] * count)
    broken(killed)
    not_started_on(killed)


@pytest.mark.parametrize("when", ["1800000000000000", None, 0, -5, {"a": 1}])
def test_a_good_endorsement_that_does_not_say_when(tmp_path: Path, when: Any) -> None:
    """Who has the files has the next key's endorsement as well, before the log does."""
    log = audit_log.written(tmp_path, 12)
    old = time.time() - 2 * AGE
    os.utime(tmp_path / "keys" / "audit-key.pem", (old, old))
    (made,) = SigningKeys(tmp_path / "keys", AGE).keys[1:]
    assert made.endorsement is not None
    said = {"event": "signing_key", **made.endorsement.fields(), **({} if when is None else {"time": when})}
    forged(log, said)
    broken(log)
    with pytest.raises(BrokenChain):
        audit_log.ledger(tmp_path, FastDisk())


def test_a_checkpoint_of_a_retired_key_starts_nothing(killed: Path) -> None:
    thief = killed.parent / "thief"
    shutil.copytree(killed.parent / "keys", thief, ignore=shutil.ignore_patterns("audit-key-2*"))
    signed = audit_log.signed_again(killed, SigningKeys(thief, LONG))
    (killed / FILE).write_bytes(b"".join([*(killed / FILE).read_bytes().splitlines(keepends=True)[:-1], signed]))
    broken(killed)
    not_started_on(killed, match="another key")


HIDDEN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "a beginning and zeros to the end of a block": lambda said: said.ljust(segments.MAX_LINE, b"\x00"),
    "two of them": lambda said: said.ljust(segments.MAX_LINE, b"\x00") * 2,
    "a beginning and blanks": lambda said: said.ljust(segments.MAX_LINE),
    "zeros alone": lambda said: bytes(segments.MAX_LINE),
    "letters": lambda said: said.ljust(3 * segments.MAX_LINE, b"x"),
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("at", [1, 12, 25, 26])
def test_bytes_between_lines(tmp_path: Path, hide: Callable[[bytes], bytes], at: int) -> None:
    """Readers of lines take a long one in pieces, and the piece that is left of it may look like a line."""
    log = audit_log.written(tmp_path)
    path = audit_log.segment(log)
    lines = path.read_bytes().splitlines(keepends=True)
    said = b'{"hash":"' + b"0" * 64 + b'","record":{"subject":"eve"'
    path.write_bytes(b"".join(lines[:at]) + hide(said) + (b"".join(lines[at:]) or b"x\n"))
    broken(log)
    for newest_first in (True, False):
        found = list(search(log, Query(), newest_first=newest_first))
        assert len(found) <= len(lines) + 1
        assert any(record is UNREADABLE for record in found)
    not_started_on(log)


@pytest.mark.parametrize("at", ["segment", "checkpoints"])
def test_a_pipe_in_the_place_of_a_file(tmp_path: Path, at: str) -> None:
    log = audit_log.written(tmp_path)
    path = log / FILE if at == "checkpoints" else audit_log.segment(log)
    path.unlink()
    os.mkfifo(path)
    for read in (lambda: audit_log.verified(log), lambda: audit_log.ledger(tmp_path)):
        with pytest.raises(OSError, match="not a regular file"):
            read()


def parted(home: Path, *names: str) -> Path:
    for name in names:
        made = audit_log.ledger(home, FastDisk(), writer=name)
        for number in range(12):
            made.append([audit_log.encoded(number)])
        made.close()
    assert not any(report.broken for report in verify_all(home / "audit", load_public_key(home / "keys" / PUBLIC_KEY)))
    return home / "audit"


def swap(one: Path, other: Path) -> None:
    one.rename(one.with_name("aside"))
    other.rename(one)
    one.with_name("aside").rename(other)


def to_the_root(log: Path) -> None:
    for path in list((log / "worker-0").iterdir()):
        path.rename(log / path.name)


PARTS: Final[dict[str, tuple[Change, str]]] = {
    "two change places": (lambda log: swap(log / "worker-0", log / "worker-1"), "worker-0"),
    "one under another name": (lambda log: (log / "worker-0").rename(log / "worker-2"), "worker-2"),
    "a copy under another name": (lambda log: shutil.copytree(log / "worker-0", log / "worker-2"), "worker-2"),
    "a copy beside it": (
        lambda log: shutil.copytree(log / "worker-0", log / "worker-00") and None,
        "worker-00",
    ),
    "one in the place of all": (to_the_root, ""),
    "one whose segments are gone": (lambda log: gone(log / "worker-1"), "worker-1"),
}


@pytest.mark.parametrize(("change", "writer"), PARTS.values(), ids=PARTS)
def test_parts_that_are_not_where_they_were(tmp_path: Path, change: Change, writer: str) -> None:
    log = parted(tmp_path, "worker-0", "worker-1")
    change(log)
    broken(log)
    not_started_on(log, writer)


def test_a_part_may_be_looked_at_alone(tmp_path: Path) -> None:
    log = parted(tmp_path, "worker-0", "worker-1")
    shutil.copytree(log / "worker-1", tmp_path / "copy")
    (report,) = verify_all(tmp_path / "copy", load_public_key(tmp_path / "keys" / PUBLIC_KEY))
    assert report.broken is None


def test_a_log_that_was_cut_to_its_genesis_is_said_to_begin(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The files can't tell it from one whose gateway was killed as it began; so the process log does."""
    log = audit_log.written(tmp_path)
    path = audit_log.segment(log)
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    (log / FILE).write_bytes(b"")
    audit_log.ledger(tmp_path, FastDisk()).close()
    assert "audit log begins" in caplog.messages


def test_a_kill_after_a_segment_could_not_be_begun(tmp_path: Path) -> None:
    """The next segment is there, empty, and the one before it goes on, uncovered and with half a line."""
    disk = FaultyDisk()
    made = audit_log.ledger(tmp_path, disk, segment_bytes=4096)
    log = tmp_path / "audit"
    while not audit_log.segment(log, 2).exists():
        if audit_log.segment(log).stat().st_size >= 4096:
            disk.room = 1000  # of the checkpoint, and of no segment's first line
        try:
            made.append([audit_log.encoded(1)])
        except OSError:
            continue
        finally:
            disk.room = None
    audit_log.abandon(made)
    path = audit_log.segment(log)
    last = json.loads(path.read_bytes().splitlines()[-1])
    line, _ = hash_chain.link(audit_log.encoded(2), Link(last["seq"], bytes.fromhex(last["hash"])))
    audit_log.segment(log, 2).write_bytes(b"")
    for half in (line[:100], line, line + line[:40]):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: last["seq"] + 1]) + half)
        assert audit_log.verified(log).broken is None
    audit_log.ledger(tmp_path, FastDisk(), segment_bytes=4096).close()
    assert audit_log.verified(log).broken is None


def test_a_whole_log_is_archived_and_verifies_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As docs/howto/hand-the-audit-over.md says: the directory gets another name while the gateway is stopped."""
    for month in range(3):
        parted(tmp_path, "worker-0", "worker-1")
        (tmp_path / "audit").rename(tmp_path / f"audit-{month}")
    assert caplog.messages.count("audit log begins") >= 2
    public = load_public_key(tmp_path / "keys" / PUBLIC_KEY)
    reports = [report for month in range(3) for report in verify_all(tmp_path / f"audit-{month}", public)]
    assert [report.broken for report in reports] == [None] * 6
    assert len({report.origin for report in reports}) == 6
