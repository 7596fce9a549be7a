"""Every kind of tampering is found, and the first bad record is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.chain import hash_chain
from gateway.audit.chain.checkpoint import FILE, Checkpoint
from gateway.audit.chain.hash_chain import BEFORE_GENESIS, BrokenChain, Link
from gateway.audit.keys.signing import SigningKeys
from gateway.audit.tools.verify import verify
from tests.support.fixtures import audit_log

Lines = list[bytes]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Records 0 to 25, checkpoints at 0, 10 and 20."""
    return audit_log.written(tmp_path)


def tamper(log: Path, change: Callable[[Lines], Lines], file: str = "audit-00000001.jsonl") -> None:
    path = log / file
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def first_bad(log: Path) -> int | None:
    broken = audit_log.verified(log).broken
    return None if broken is None else broken.seq


def test_what_was_written_is_intact(log: Path) -> None:
    report = audit_log.verified(log)
    assert report.broken is None
    assert (report.records, report.segments, report.checkpoints) == (26, 1, 3)
    assert (report.covered, report.uncovered, report.promised) == (20, 5, True)


@pytest.mark.parametrize("at", [0, 1, 7, 25])
def test_an_edited_field(log: Path, at: int) -> None:
    def edit(lines: Lines) -> Lines:
        return [line.replace(b'"time":1', b'"time":2') if seq == at else line for seq, line in enumerate(lines)]

    tamper(log, edit)
    assert first_bad(log) == at


@pytest.mark.parametrize("at", [0, 1, 7, 24])
def test_a_deleted_record(log: Path, at: int) -> None:
    tamper(log, lambda lines: lines[:at] + lines[at + 1 :])
    assert first_bad(log) == at


@pytest.mark.parametrize("at", [0, 7, 24])
def test_two_swapped_records(log: Path, at: int) -> None:
    tamper(log, lambda lines: [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
    assert first_bad(log) == at


@pytest.mark.parametrize("at", [0, 7, 26])
def test_an_inserted_record(log: Path, at: int) -> None:
    forged, _ = hash_chain.link(audit_log.encoded(99), Link(at - 1, bytes(32)))
    if at == 0:
        forged, _ = hash_chain.link(audit_log.encoded(99), Link(-1, bytes([1]) * 32))
    tamper(log, lambda lines: [*lines[:at], forged, *lines[at:]])
    assert first_bad(log) == at


def test_a_repeated_record(log: Path) -> None:
    tamper(log, lambda lines: [*lines[:8], lines[7], *lines[8:]])
    assert first_bad(log) == 8


@pytest.mark.parametrize("garbage", [b"\n", b"{}\n", b"x" * 200_000 + b"\n", b"\x00" * 300 + b"\n", b'{"hash":"\n'])
def test_a_line_that_is_no_record(log: Path, garbage: bytes) -> None:
    tamper(log, lambda lines: [*lines[:5], garbage, *lines[5:]])
    assert first_bad(log) == 5


@pytest.mark.parametrize("left", [0, 1, 10, 20])
def test_a_log_cut_before_its_last_checkpoint(log: Path, left: int) -> None:
    tamper(log, lambda lines: lines[:left])
    assert first_bad(log) == left


def rewrite(lines: Lines, at: int) -> Lines:
    """The work of someone who edits a record and computes every later hash anew."""
    last, forged = BEFORE_GENESIS, []
    for seq, line in enumerate(lines):
        content = hash_chain.record_of(line[:-1])
        made, last = hash_chain.link(content.replace(b'"bob"', b'"eve"') if seq == at else content, last)
        forged.append(made)
    return forged


@pytest.mark.parametrize(("at", "found"), [(5, 10), (10, 10), (11, 20), (20, 20)])
def test_hashes_made_anew_meet_the_next_checkpoint(log: Path, at: int, found: int) -> None:
    tamper(log, lambda lines: rewrite(lines, at))
    assert first_bad(log) == found


def test_a_checkpoint_that_is_edited(log: Path) -> None:
    tamper(log, lambda lines: [lines[0], lines[1].replace(b'"seq":10', b'"seq":9'), lines[2]], FILE)
    assert first_bad(log) == 9


def test_a_checkpoint_that_is_nonsense(log: Path) -> None:
    tamper(log, lambda lines: [*lines, b"[1]\n"], FILE)
    assert first_bad(log) == -1


def test_a_checkpoint_of_another_key(log: Path, tmp_path: Path) -> None:
    foreign = SigningKeys(tmp_path / "foreign", audit_log.LONG)
    forged = Checkpoint(Link(25, bytes(32)), 0, "w").signed(foreign)
    tamper(log, lambda lines: [*lines, forged], FILE)
    report = audit_log.verified(log)
    assert report.broken is not None
    assert (report.broken.seq, "another key" in report.broken.why) == (25, True)


def test_verifying_with_the_wrong_key(log: Path, tmp_path: Path) -> None:
    os.replace(tmp_path / "keys" / "audit-key.pub.pem", tmp_path / "kept")  # noqa: PTH105
    SigningKeys(tmp_path / "foreign", audit_log.LONG)
    os.replace(tmp_path / "foreign" / "audit-key.pub.pem", tmp_path / "keys" / "audit-key.pub.pem")  # noqa: PTH105
    assert first_bad(log) == 0


def test_the_wrong_key_is_found_where_no_checkpoint_is(log: Path, tmp_path: Path) -> None:
    (log / FILE).unlink()
    audit_log.segment(log).write_bytes(audit_log.segment(log).read_bytes().splitlines(keepends=True)[0])
    assert first_bad(log) is None
    report = verify(log, SigningKeys(tmp_path / "foreign", audit_log.LONG).newest.public)
    assert report.broken is not None
    assert (report.broken.seq, "another key" in report.broken.why) == (0, True)


def test_every_bit_of_every_byte_counts(tmp_path: Path) -> None:
    log = audit_log.written(tmp_path, 1)
    path = audit_log.segment(log)
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        report = audit_log.verified(log)
        assert report.broken is not None or report.unfinished_bytes, position


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_a_segment_that_is_gone(tmp_path: Path, gone: int) -> None:
    log = audit_log.written(tmp_path, 40, segment_bytes=4096)
    first = json.loads(audit_log.segment(log, gone).read_bytes().splitlines()[0])["seq"]
    audit_log.segment(log, gone).unlink()
    assert first_bad(log) == first


def test_an_unfinished_last_line_is_not_yet_written(log: Path) -> None:
    path = audit_log.segment(log)
    path.write_bytes(path.read_bytes()[:-1])
    report = audit_log.verified(log)
    assert report.broken is None
    assert report.records == 25
    assert report.unfinished_bytes > 0


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers()), max_size=8))
def test_what_is_linked_is_followed(contents: list[dict[str, str | int]]) -> None:
    last, lines = BEFORE_GENESIS, []
    for content in contents:
        line, last = hash_chain.link(json.dumps(content).encode(), last)
        assert json.loads(line)["record"] == content
        lines.append(line[:-1])
    reached = list(hash_chain.follow(lines, BEFORE_GENESIS))
    assert [link.seq for link in reached] == list(range(len(lines)))
    assert not reached or reached[-1] == last


@given(st.lists(st.binary(max_size=200), min_size=1))
def test_any_bytes_are_broken_and_nothing_worse(lines: Lines) -> None:
    with pytest.raises(BrokenChain):
        list(hash_chain.follow(lines, BEFORE_GENESIS))
