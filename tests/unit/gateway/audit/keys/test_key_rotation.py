"""Key rotation: a log over many keys verifies with the first one, and old HMACs still match."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from gateway.audit.chain.hash_chain import BrokenChain
from gateway.audit.chain.ledger import Ledger
from gateway.audit.keys.content_hmac import ContentHmac, HmacKeys, find_key, key_id
from gateway.audit.keys.key_rotation import KeyRotation
from gateway.audit.keys.signing import PRIVATE_KEY, Endorsement, SigningKeys
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import LONG, Clock, FastDisk

AGE = 1000.0


def keys_of(directory: Path, clock: Clock) -> SigningKeys:
    return SigningKeys(directory, AGE, clock.wall)


def aged(directory: Path, name: str) -> None:
    """Makes a key file old enough to be followed."""
    moment = time.time() - 2 * AGE
    os.utime(directory / name, (moment, moment))


def opened(home: Path, clock: Clock | None = None, writer: str = "") -> Ledger:
    return audit_log.ledger(home, FastDisk(), clock=clock, writer=writer, signing_key_seconds=AGE)


def fill(made: Ledger, count: int) -> None:
    for number in range(count):
        made.append([audit_log.encoded(number)])


def test_a_key_is_followed_when_it_has_come_of_age(tmp_path: Path) -> None:
    clock = Clock()
    keys = keys_of(tmp_path, clock)
    clock.advance(AGE - 60)
    keys.rotate()
    assert len(keys.keys) == 1
    clock.advance(120)
    keys.rotate()
    first, second = keys.keys
    assert second.endorsement is not None
    assert (second.endorsement.by, second.endorsement.key) == (first.key_id, second.key_id)
    assert keys.newest is second
    assert [key.key_id for key in SigningKeys(tmp_path, LONG).keys] == [first.key_id, second.key_id]


def test_of_two_that_renew_at_once_one_key_comes(tmp_path: Path) -> None:
    clock = Clock()
    one, other = keys_of(tmp_path, clock), keys_of(tmp_path, clock)
    aged(tmp_path, PRIVATE_KEY)
    one.rotate()
    other.rotate()
    assert [key.key_id for key in one.keys] == [key.key_id for key in other.keys]
    assert len(one.keys) == 2


def test_a_log_goes_over_to_the_next_key_while_it_is_open(tmp_path: Path) -> None:
    clock = Clock()
    made = opened(tmp_path, clock)
    fill(made, 15)
    aged(tmp_path / "keys", PRIVATE_KEY)
    clock.advance(61)
    fill(made, 15)
    made.close()
    log = tmp_path / "audit"
    report = audit_log.verified(log)
    signers = {json.loads(line)["key"] for line in (log / "checkpoints.jsonl").read_bytes().splitlines()}
    assert report.broken is None
    assert report.uncovered == 0
    assert signers == {key.key_id for key in SigningKeys(tmp_path / "keys", LONG).keys}
    assert len(signers) == 2


def test_a_log_that_was_closed_while_keys_changed_goes_on(tmp_path: Path) -> None:
    opened(tmp_path).close()
    for name in (PRIVATE_KEY, "audit-key-2.pem"):
        aged(tmp_path / "keys", name)
        SigningKeys(tmp_path / "keys", AGE)
    (tmp_path / "keys" / PRIVATE_KEY).unlink()  # of no more use
    (tmp_path / "keys" / "audit-key-2.pem").unlink()
    opened(tmp_path).close()
    opened(tmp_path).close()
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.uncovered) == (None, 0)
    assert report.key == SigningKeys(tmp_path / "keys", LONG).keys[2].key_id


def test_a_writer_that_begins_late_starts_from_the_first_key_too(tmp_path: Path) -> None:
    opened(tmp_path, writer="worker-0").close()
    aged(tmp_path / "keys", PRIVATE_KEY)
    opened(tmp_path, writer="worker-1").close()
    report = audit_log.verified(tmp_path / "audit" / "worker-1", tmp_path / "keys")
    assert (report.broken, report.uncovered) == (None, 0)


def test_a_crash_between_a_key_and_its_endorsement_is_made_good(tmp_path: Path) -> None:
    SigningKeys(tmp_path, AGE)
    aged(tmp_path, PRIVATE_KEY)
    keys = SigningKeys(tmp_path, AGE)
    (tmp_path / "audit-key-2.json").unlink()
    assert SigningKeys(tmp_path, AGE).newest.key_id == keys.newest.key_id


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"by":1}', b"\xff"])
def test_an_endorsement_that_is_none_stops_the_start(tmp_path: Path, content: bytes) -> None:
    SigningKeys(tmp_path, AGE)
    aged(tmp_path, PRIVATE_KEY)
    SigningKeys(tmp_path, AGE)
    (tmp_path / "audit-key-2.json").write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        SigningKeys(tmp_path, AGE)


def test_an_endorsement_counts_for_its_key_and_from_its_key_alone(tmp_path: Path) -> None:
    SigningKeys(tmp_path, AGE)
    aged(tmp_path, PRIVATE_KEY)
    first, second = SigningKeys(tmp_path, AGE).keys
    foreign = SigningKeys(tmp_path / "foreign", AGE).newest
    assert second.endorsement is not None
    said = second.endorsement.fields()
    assert Endorsement.read(said, first.public).key == second.key_id
    for forged in (
        {**said, "public": foreign.public.public_bytes_raw().hex(), "key": foreign.key_id},
        {**said, "key": foreign.key_id},
        {**said, "by": foreign.key_id},
        {**said, "signature": said["signature"][:-1] + ("1" if said["signature"][-1] == "0" else "0")},
    ):
        with pytest.raises(ValueError, match="did not sign"):
            Endorsement.read(forged, first.public)
    with pytest.raises(ValueError, match="did not sign"):
        Endorsement.read(said, foreign.public)


def test_the_log_of_another_key_is_not_continued(tmp_path: Path) -> None:
    audit_log.abandon(opened(tmp_path))
    for path in (tmp_path / "keys").iterdir():
        path.unlink()
    with pytest.raises(BrokenChain, match="another key"):
        opened(tmp_path)


def test_digest_keys_follow_each_other_and_old_ones_stay(tmp_path: Path) -> None:
    clock = Clock()
    keys = HmacKeys(tmp_path, AGE, clock.wall)
    before = keys.hmacs()
    before.request.update(b"hello")
    clock.advance(AGE + 1)
    keys.rotate()
    after = keys.hmacs()
    after.request.update(b"hello")
    assert after.key_id != before.key_id
    assert after.request.hexdigest() != before.request.hexdigest()
    old = find_key(tmp_path, before.key_id)
    assert old is not None
    assert key_id(old) == before.key_id
    again = ContentHmac(old, "request")
    again.update(b"hello")
    assert again.hexdigest() == before.request.hexdigest()
    assert find_key(tmp_path, "0" * 16) is None


def test_a_digest_key_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit-hmac.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        HmacKeys(tmp_path, AGE)


def test_files_are_numbered_from_the_second_on(tmp_path: Path) -> None:
    for name in ("k.pem", "k-2.pem", "k-10.pem", "k-1.pem", "k-02.pem", "k-x.pem", "k-2.pem.bak", "kk.pem"):
        (tmp_path / name).touch()
    assert [number for number, _ in KeyRotation(tmp_path, "k", ".pem").listed()] == [1, 2, 10]
    assert KeyRotation(tmp_path / "absent", "k", ".pem").listed() == []
