"""After a crash at any byte the log goes on, says what was lost, and verifies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import record as records
from gateway.audit.chain import segments
from gateway.audit.chain.checkpoint import FILE
from gateway.audit.chain.hash_chain import BrokenChain
from gateway.audit.keys.signing import PUBLIC_KEY, load_public_key
from gateway.audit.tools.verify import verify_all
from meshgate.runtime.config import ConfigError
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import Clock, FastDisk, FaultyDisk


def contents(log: Path, number: int = 1) -> list[dict[str, Any]]:
    lines = audit_log.segment(log, number).read_bytes().splitlines()
    return [json.loads(line)["record"] for line in lines]


def events(log: Path, number: int = 1) -> list[str]:
    return [content["event"] for content in contents(log, number)]


def test_a_log_begins_with_its_genesis_and_ends_with_a_goodbye(tmp_path: Path) -> None:
    audit_log.ledger(tmp_path).close()
    log = tmp_path / "audit"
    assert events(log) == ["genesis", "closed"]
    report = audit_log.verified(log)
    assert (report.broken, report.records, report.uncovered) == (None, 2, 0)


def test_a_restart_goes_on_with_the_same_chain(tmp_path: Path) -> None:
    audit_log.ledger(tmp_path).close()
    audit_log.ledger(tmp_path).close()
    log = tmp_path / "audit"
    assert events(log) == ["genesis", "closed", "opened", "closed"]
    assert audit_log.verified(log).broken is None


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    audit_log.ledger(tmp_path).close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes.pop("audit-key.pub.pem") == 0o644
    assert modes.pop("audit") == modes.pop("keys") == 0o700
    assert set(modes.values()) == {0o600}


def test_a_kill_at_any_byte(tmp_path: Path) -> None:
    original = tmp_path / "original"
    made = audit_log.ledger(original, FastDisk())
    for event in ("a", "b", "c"):
        made.append(
            [records.canonical({"event": event, "time": 1})]
        )  # short ones, because there is a start for each byte
    audit_log.abandon(made)
    whole = audit_log.segment(original / "audit").read_bytes()
    starts = [0]
    for line in whole.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for cut in range(starts[1], len(whole) + 1):  # what comes before leaves no log: see the next test
        home = tmp_path / str(cut)
        shutil.copytree(original, home)
        audit_log.segment(home / "audit").write_bytes(whole[:cut])
        audit_log.ledger(home, FastDisk()).close()
        check_recovered(home / "audit", whole[:cut], cut - max(start for start in starts if start <= cut))
        shutil.rmtree(home)


def check_recovered(log: Path, left: bytes, torn: int) -> None:
    report = audit_log.verified(log)
    assert (report.broken, report.unfinished_bytes) == (None, 0)
    opened = contents(log)[-2]
    asides = list(log.glob("*.torn"))
    assert opened["event"] == "opened"
    assert opened.get("torn_bytes", 0) == torn
    assert [path.read_bytes() for path in asides] == ([left[len(left) - torn :]] if torn else [])
    assert [path.name for path in asides] == ([opened["torn_file"]] if torn else [])


def test_a_kill_within_the_very_first_record(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path, 0)
    path = audit_log.segment(log)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        (log / FILE).write_bytes(b"")  # the first comes after it
        audit_log.abandon(audit_log.ledger(tmp_path, FastDisk()))
        assert events(log)[0] == "genesis"
        assert audit_log.verified(log).broken is None


def test_a_kill_while_a_segment_begins(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path, 40, segment_bytes=4096)
    newest = max(log.glob("audit-*.jsonl"))
    begun = json.loads(newest.read_bytes().splitlines()[0])["seq"]
    newest.write_bytes(newest.read_bytes()[:30])
    audit_log.uncover(log, begun)
    audit_log.ledger(tmp_path).close()
    assert audit_log.verified(log).broken is None
    first = json.loads(newest.read_bytes().splitlines()[0])["record"]
    assert first["event"] == "segment"


def test_a_kill_within_a_checkpoint(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path)
    path = log / FILE
    path.write_bytes(path.read_bytes()[:-20])
    audit_log.ledger(tmp_path).close()
    report = audit_log.verified(log)
    assert (report.broken, report.checkpoints) == (None, 5)  # 0, 10, what was found, before the goodbye and after


def test_segments_are_sealed_and_continue_each_other(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path, 40, segment_bytes=4096)
    report = audit_log.verified(log)
    assert report.broken is None
    assert report.segments > 2
    assert audit_log.segment(log, 1).stat().st_mode & 0o777 == 0o400
    last = json.loads(audit_log.segment(log, 1).read_bytes().splitlines()[-1])
    first = json.loads(audit_log.segment(log, 2).read_bytes().splitlines()[0])
    assert first["record"]["previous"] == last["hash"]
    assert first["seq"] == last["seq"] + 1


def test_a_segment_ends_with_a_checkpoint(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path, 40, segment_bytes=4096, checkpoint_records=1_000_000)
    last = json.loads(audit_log.segment(log, 1).read_bytes().splitlines()[-1])["seq"]
    covered = [json.loads(line)["seq"] for line in (log / FILE).read_bytes().splitlines()]
    assert covered[:2] == [0, last]


@pytest.mark.parametrize("edit", ["altered", "cut", "rewritten"])
def test_a_log_that_was_tampered_with_is_not_continued(tmp_path: Path, edit: str) -> None:
    log = audit_log.written(tmp_path)
    path = audit_log.segment(log)
    lines = path.read_bytes().splitlines(keepends=True)
    if edit == "altered":
        path.write_bytes(b"".join(lines).replace(b'"bob"', b'"eve"', 1))
    elif edit == "cut":
        path.write_bytes(b"".join(lines[:10]))
    else:
        path.unlink()
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        other = audit_log.written(tmp_path / "other")
        shutil.copy(audit_log.segment(other), path)
    with pytest.raises(BrokenChain):
        audit_log.ledger(tmp_path)


def test_a_second_writer_is_kept_out(tmp_path: Path) -> None:
    first = audit_log.ledger(tmp_path)
    with pytest.raises(BlockingIOError):
        audit_log.ledger(tmp_path)
    first.close()
    audit_log.ledger(tmp_path).close()


def test_a_key_that_does_not_fit_its_public_half_stops_the_start(tmp_path: Path) -> None:
    audit_log.ledger(tmp_path).close()
    audit_log.ledger(tmp_path / "other").close()
    shutil.copy(tmp_path / "other/keys/audit-key.pem", tmp_path / "keys/audit-key.pem")
    with pytest.raises(ConfigError, match=r"audit\.keys: .*public half"):
        audit_log.ledger(tmp_path)


def test_a_segment_ends_when_it_is_old(tmp_path: Path) -> None:
    clock = Clock()
    made = audit_log.ledger(tmp_path, FastDisk(), clock=clock, segment_seconds=60)
    log = tmp_path / "audit"
    made.append([audit_log.encoded(1)])
    clock.advance(59)
    made.append([audit_log.encoded(2)])
    assert not audit_log.segment(log, 2).exists()
    clock.advance(1)
    made.append([audit_log.encoded(3)])
    assert events(log, 2) == ["segment", "ended"]
    clock.advance(60)
    assert made.due() <= 0.01
    made.idle()
    assert events(log, 3) == ["segment"]
    assert made.due() > 1
    made.close()
    assert audit_log.verified(log).broken is None


def test_a_segment_that_cannot_be_begun_is_not_tried_for_all_the_time(tmp_path: Path) -> None:
    clock, disk = Clock(), FaultyDisk()
    made = audit_log.ledger(tmp_path, disk, clock=clock, segment_seconds=60)
    clock.advance(60)
    disk.room = 0
    with pytest.raises(OSError, match="No space"):
        made.idle()
    assert made.due() > 1
    disk.room = None
    clock.advance(61)
    made.idle()
    made.close()
    assert audit_log.verified(tmp_path / "audit").broken is None
    assert audit_log.segment(tmp_path / "audit", 2).exists()


def test_the_age_of_a_segment_outlives_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    audit_log.ledger(tmp_path, FastDisk(), clock=clock, segment_seconds=60).close()
    clock.advance(61)
    audit_log.ledger(tmp_path, FastDisk(), clock=clock, segment_seconds=60).close()
    assert events(tmp_path / "audit", 2) == ["segment", "opened", "closed"]
    assert audit_log.verified(tmp_path / "audit").broken is None


def test_each_writer_has_a_log_of_its_own(tmp_path: Path) -> None:
    made = [audit_log.ledger(tmp_path, FastDisk(), writer=f"worker-{number}") for number in range(3)]
    for each in made:
        each.append([audit_log.encoded()])
        each.close()
    root = tmp_path / "audit"
    reports = verify_all(root, load_public_key(tmp_path / "keys" / PUBLIC_KEY))
    assert [(report.writer, report.broken, report.records) for report in reports] == [
        (f"worker-{number}", None, 3) for number in range(3)
    ]
    assert contents(root / "worker-1")[0]["name"] == "worker-1"


def test_where_there_is_no_log_there_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        segments.writers(tmp_path)
