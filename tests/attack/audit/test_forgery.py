"""What someone with the files, and perhaps an old key, can do to the log without being found out: nothing."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import record as records
from gateway.audit.chain import hash_chain, segments
from gateway.audit.chain.checkpoint import FILE, Checkpoint, SignedCheckpoint
from gateway.audit.chain.external_checkpoints import kept
from gateway.audit.chain.hash_chain import BEFORE_GENESIS, BrokenChain, Link
from gateway.audit.chain.ledger import Ledger
from gateway.audit.keys.signing import PUBLIC_KEY, SigningKeys, load_public_key
from gateway.audit.record import canonical
from gateway.audit.tools import tail
from gateway.audit.tools.search import Query, search
from gateway.audit.tools.verify import Report, verify_all
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import LONG, Clock, FastDisk

Lines = list[bytes]
AGE = 1000.0


def opened(home: Path, clock: Clock, writer: str = "") -> Ledger:
    return audit_log.ledger(home, FastDisk(), clock=clock, writer=writer, signing_key_seconds=AGE, checkpoint_records=5)


def fill(made: Ledger, count: int) -> None:
    for number in range(count):
        made.append([audit_log.encoded(number)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that went over from a first key to a second."""
    clock = Clock()
    made = opened(tmp_path, clock)
    fill(made, 12)
    old = time.time() - 2 * AGE
    os.utime(tmp_path / "keys" / "audit-key.pem", (old, old))
    clock.advance(61)
    fill(made, 12)
    made.close()
    assert audit_log.verified(tmp_path / "audit").broken is None
    return tmp_path / "audit"


def lines(log: Path) -> Lines:
    return audit_log.segment(log).read_bytes().splitlines(keepends=True)


def rechained(log: Path, change: Callable[[int, bytes], bytes | None]) -> Link:
    """Writes the log anew with other records and good hashes throughout; None leaves a record out."""
    last, forged = BEFORE_GENESIS, []
    for seq, line in enumerate(lines(log)):
        content = change(seq, hash_chain.record_of(line[:-1]))
        if content is not None:
            made, last = hash_chain.link(content, last)
            forged.append(made)
    audit_log.segment(log).write_bytes(b"".join(forged))
    return last


def spread(home: Path, count: int = 60, seconds: float = 1.0, **changes: Any) -> Path:
    """The log of a gateway that was stopped after so many calls, so far from each other."""
    clock = Clock()
    made = audit_log.ledger(home, FastDisk(), clock=clock, **changes)
    for number in range(count):
        made.append([records.encode(audit_log.record(number, time=int(clock.now * 1e6)))])
        clock.advance(seconds)
        made.idle()
    made.close()
    return home / "audit"


def renamed(seq: int, content: bytes) -> bytes:
    """Another did it."""
    return content.replace(b'"bob"', b'"eve"')


def not_continued(log: Path) -> None:
    """The gateway does not start, so that it signs nothing of this."""
    before = {path: path.read_bytes() for path in log.iterdir()}
    with pytest.raises(BrokenChain):
        audit_log.ledger(log.parent)
    assert {path: path.read_bytes() for path in log.iterdir()} == before


def test_a_log_made_anew_without_checkpoints(tmp_path: Path) -> None:
    log = spread(tmp_path)
    rechained(log, renamed)
    (log / FILE).unlink()
    assert verdict(log).seq == 0
    (log / FILE).touch()
    not_continued(log)


@pytest.mark.parametrize(("count", "seconds"), [(60, 1.0), (1200, 0.0)])
def test_a_log_made_anew_after_its_checkpoints_were_dropped(tmp_path: Path, count: int, seconds: float) -> None:
    log = spread(tmp_path, count, seconds)
    rechained(
        log, lambda seq, content: renamed(seq, content) if 11 < seq <= count else None if seq > count else content
    )
    audit_log.uncover(log, 12)
    first = json.loads((log / FILE).read_bytes().splitlines()[-1])["seq"] + 1
    assert verdict(log).seq == first
    assert "no checkpoint covers it" in verdict(log).why
    not_continued(log)


def test_a_record_that_hides_when_it_was(tmp_path: Path) -> None:
    """To a reader of JSON it is of its time; to who looks at bytes it would all be of one."""
    log = spread(tmp_path)
    hidden = b'"z":{"time":1800000000000000},"\\u0074ime":'

    def change(seq: int, content: bytes) -> bytes | None:
        return content.replace(b'"time":', hidden) if 11 < seq < 61 else None if seq > 60 else content

    rechained(log, change)
    audit_log.uncover(log, 12)
    assert verdict(log).seq <= 12
    not_continued(log)


def test_a_promise_is_signed(tmp_path: Path) -> None:
    log = spread(tmp_path)
    whole = (log / FILE).read_bytes().splitlines(keepends=True)
    for name, value in (("next_us", 10**15), ("next_records", 10**9), (None, None)):
        stated = json.loads(whole[1])
        if name:
            stated[name] = value
        else:
            del stated["next_us"], stated["next_records"]
        (log / FILE).write_bytes(whole[0] + canonical(stated) + b"\n" + b"".join(whole[2:]))
        assert "signature of its checkpoint is invalid" in verdict(log).why


def test_a_goodbye_alone_is_uncovered(tmp_path: Path) -> None:
    """What would pass for the work of a kill does not where the gateway took its leave."""
    log = spread(tmp_path, 12, 0.0)
    rechained(log, lambda seq, content: renamed(seq, content) if seq == 12 else content)
    audit_log.uncover(log, 12)
    assert verdict(log).seq == 11
    not_continued(log)


def test_a_sealed_segment_ends_covered(tmp_path: Path) -> None:
    log = spread(tmp_path, 20, 0.0, segment_bytes=4096)
    begun = json.loads(audit_log.segment(log, 2).read_bytes().splitlines()[0])["seq"]
    audit_log.uncover(log, begun - 1)
    assert verdict(log).seq < begun
    not_continued(log)


def test_a_log_that_begins_with_another_key(tmp_path: Path) -> None:
    log = spread(tmp_path)
    stranger = SigningKeys(tmp_path / "stranger", LONG)
    own = SigningKeys(tmp_path / "keys", LONG).newest.key_id.encode()
    last = rechained(log, lambda seq, content: content.replace(own, stranger.newest.key_id.encode()))
    (log / FILE).write_bytes(Checkpoint(last, 1, "w").signed(stranger))
    assert (verdict(log).seq, "begins with another key" in verdict(log).why) == (0, True)


def kept_of(log: Path) -> list[SignedCheckpoint]:
    return kept((log / FILE).read_text().splitlines())


def against(log: Path, signed: list[SignedCheckpoint]) -> list[Report]:
    return verify_all(log, load_public_key(log.parent / "keys" / PUBLIC_KEY), signed)


def test_a_log_cut_with_its_checkpoints_lacks_those_kept_elsewhere(tmp_path: Path) -> None:
    log = spread(tmp_path)
    signed = kept_of(log)
    assert [(report.broken, report.matched) for report in against(log, signed)] == [(None, len(signed))]
    audit_log.segment(log).write_bytes(b"".join(lines(log)[:12]))
    audit_log.uncover(log, 12)
    assert audit_log.verified(log).broken is None  # nothing in it tells
    (report,) = against(log, signed[-1:])
    assert (report.broken and report.broken.seq) == 12


def test_a_log_made_anew_by_the_holder_of_the_key_contradicts_those_kept_elsewhere(tmp_path: Path) -> None:
    log, keys = spread(tmp_path), SigningKeys(tmp_path / "keys", LONG)
    signed = kept_of(log)
    last = rechained(log, renamed)
    genesis = json.loads(lines(log)[0])
    first = Checkpoint(Link(0, bytes.fromhex(genesis["hash"])), 1, genesis["record"]["writer"])
    (log / FILE).write_bytes(first.signed(keys) + Checkpoint(last, 1, "w").signed(keys))
    assert audit_log.verified(log).broken is None
    (report,) = against(log, [signed[3]])
    assert (report.broken and report.broken.seq) == signed[3].seq


def test_a_log_put_in_anothers_place_is_told_by_those_kept_elsewhere(tmp_path: Path) -> None:
    log = spread(tmp_path)
    signed = kept_of(log)
    shutil.rmtree(log)
    spread(tmp_path)
    one, gone = against(log, signed)
    assert (one.broken, gone.broken and gone.broken.seq) == (None, 0)


def endorsed_at(log: Path) -> int:
    return next(seq for seq, line in enumerate(lines(log)) if b'"event":"signing_key"' in line)


def verdict(log: Path) -> BrokenChain:
    broken = audit_log.verified(log).broken
    assert broken is not None
    return broken


def old_key(home: Path) -> SigningKeys:
    """The first key alone, as its thief has it."""
    thief = home / "thief"
    shutil.copytree(home / "keys", thief, ignore=shutil.ignore_patterns("audit-key-2*"))
    return SigningKeys(thief, LONG)


def test_a_key_that_signs_itself_in_is_found(log: Path, tmp_path: Path) -> None:
    stranger = SigningKeys(tmp_path / "stranger", LONG)
    at = endorsed_at(log)
    forged = {"public": stranger.newest.public.public_bytes_raw().hex(), "key": stranger.newest.key_id}

    def change(seq: int, content: bytes) -> bytes:
        return canonical({**json.loads(content), **forged}) if seq == at else content

    last = rechained(log, change)
    (log / FILE).write_bytes(Checkpoint(last, 1, "w").signed(stranger))
    assert verdict(log).seq == at
    assert "did not sign" in verdict(log).why


def test_a_key_without_an_endorsement_signs_nothing(log: Path) -> None:
    at = endorsed_at(log)
    rechained(log, lambda seq, content: None if seq == at else content)
    assert verdict(log).seq <= at + 5


def test_a_retired_key_signs_nothing_any_more(log: Path, tmp_path: Path) -> None:
    thief = old_key(tmp_path)
    count = len(lines(log))

    def change(seq: int, content: bytes) -> bytes | None:
        return None if seq == count - 1 else content.replace(b'"bob"', b'"eve"') if seq > count - 4 else content

    last = rechained(log, change)  # and without a goodbye, which has to be covered
    signed = (log / FILE).read_bytes().splitlines(keepends=True)
    kept = [line for line in signed if json.loads(line)["seq"] <= count - 4]
    (log / FILE).write_bytes(b"".join(kept) + Checkpoint(last, 1, "w").signed(thief))
    assert "another key" in verdict(log).why


def test_checkpoints_of_the_past_are_not_signed_anew_by_the_next_key(log: Path, tmp_path: Path) -> None:
    keys = SigningKeys(tmp_path / "keys", LONG)
    kept = (log / FILE).read_bytes().splitlines(keepends=True)
    first = json.loads(kept[0])
    again = Checkpoint(Link(first["seq"], bytes.fromhex(first["hash"])), 1, first["writer"]).signed(keys)
    (log / FILE).write_bytes(again + b"".join(kept[1:]))
    assert (verdict(log).seq, "another key" in verdict(log).why) == (first["seq"], True)


def test_checkpoints_do_not_change_places(log: Path) -> None:
    kept = (log / FILE).read_bytes().splitlines(keepends=True)
    (log / FILE).write_bytes(b"".join([kept[1], kept[0], *kept[2:]]))
    assert "does not stand where it was written" in verdict(log).why


def segmented(home: Path, **changes: Any) -> Path:
    return audit_log.written(home, 60, segment_bytes=4096, **changes)


def test_two_segments_that_change_places(tmp_path: Path) -> None:
    log = segmented(tmp_path)
    first = json.loads(audit_log.segment(log, 2).read_bytes().splitlines()[0])["seq"]
    swap(audit_log.segment(log, 2), audit_log.segment(log, 3))
    assert verdict(log).seq == first


def test_a_segment_of_another_writer(tmp_path: Path) -> None:
    log, other = segmented(tmp_path), segmented(tmp_path / "other")
    first = json.loads(audit_log.segment(log, 2).read_bytes().splitlines()[0])["seq"]
    swap(audit_log.segment(log, 2), audit_log.segment(other, 2))
    assert verdict(log).seq == first


def test_the_logs_of_two_writers_that_change_places(tmp_path: Path) -> None:
    root = tmp_path / "audit"
    for number in range(2):
        made = audit_log.ledger(tmp_path, FastDisk(), writer=f"worker-{number}")
        fill(made, 12 + number)
        made.close()
    swap(root / "worker-0", root / "worker-1")
    reports = verify_all(root, load_public_key(tmp_path / "keys" / PUBLIC_KEY))
    assert [report.broken.seq if report.broken else None for report in reports] == [0, 0]
    assert "another writer, worker-1" in str(reports[0].broken)


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 50_000 + b"\n",
        b'{"hash":"' + b"0" * 64 + b'","record":{"time":' + b"9" * 5000 + b'},"seq":1}\n',
        b'{"hash":"' + b"0" * 64 + b'","record":{"event":"signing_key"},"seq":1}\n',
        b'{"hash":"' + b"0" * 64 + b'","record":{"time":{"a":1},"tenant":[],"event":7},"seq":1}\n',
        b"\xff\xfe\x00" * 1000 + b"\n",
        b"x" * (3 * segments.MAX_LINE) + b"\n",
        b"\n" * 1000,
    ],
)
def test_hostile_lines_are_named_and_nothing_worse(tmp_path: Path, hostile: bytes) -> None:
    log = audit_log.written(tmp_path)
    whole = lines(log)
    audit_log.segment(log).write_bytes(whole[0] + hostile + b"".join(whole[1:]))
    assert verdict(log).seq == 1
    for newest_first in (True, False):
        assert len(list(search(log, Query(since=0), newest_first=newest_first))) >= len(whole)
    assert tail.last(log, 5)
    with pytest.raises(BrokenChain):
        audit_log.ledger(tmp_path)


@pytest.mark.parametrize(
    "said", [b"[]", b"{}", b'{"seq":"x"}', b'{"hash":"00","key":1,"seq":' + b"9" * 30 + b',"signature":"","time":1}']
)
def test_hostile_checkpoints_are_named_and_nothing_worse(tmp_path: Path, said: bytes) -> None:
    log = audit_log.written(tmp_path)
    (log / FILE).write_bytes(said + b"\n" + (log / FILE).read_bytes())
    assert verdict(log).seq == -1


def test_a_retired_key_that_is_endorsed_again_is_none(log: Path, tmp_path: Path) -> None:
    """The endorsement of the second key, once more: its own key did not make it."""
    at = endorsed_at(log)
    said = hash_chain.record_of(lines(log)[at][:-1])
    rechained(log, lambda seq, content: said if seq == at + 2 else content)
    (log / FILE).write_bytes(b"")
    assert verdict(log).seq == at + 2
