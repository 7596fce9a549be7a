"""A recipient's keys: published, overlapped, deleted; and shared with the processes beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgate import sealing
from meshgate.runtime.config import ConfigError
from meshgate.runtime.keyring import Keyring

DAY = 24 * 3600 * 1000


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def ids(keyring: Keyring) -> list[str]:
    return [key.key_id for key in keyring.published()]


def test_each_suite_has_a_key_and_the_hybrid_one_comes_first(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path, Clock())
    assert [key.suite for key in keyring.published()] == list(sealing.SUITES)
    assert ids(Keyring(tmp_path, Clock())) == ids(keyring)


def test_a_key_is_accepted_for_a_while_after_its_successor_is_published_and_then_deleted(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring(tmp_path, clock)
    old = ids(keyring)
    clock.now += 21 * DAY
    new = ids(keyring)
    assert not set(old) & set(new)
    assert all(keyring.find(key) for key in (*old, *new))
    clock.now += 21 * DAY
    ids(keyring)
    assert not any(keyring.find(key) for key in old)
    assert all(keyring.find(key) for key in new)
    assert not {path.stem for path in tmp_path.iterdir()} & set(old)


def test_a_key_that_another_process_made_is_found(tmp_path: Path) -> None:
    clock = Clock()
    first, second = Keyring(tmp_path, clock), Keyring(tmp_path, clock)
    clock.now += 21 * DAY
    made = ids(first)
    assert all(second.find(key) for key in made)
    assert ids(second) == made


def test_unknown_ids_make_nobody_read_the_disk_again_and_again(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring(tmp_path, clock)
    clock.now += 1000
    assert keyring.find("0" * 16) is None
    (tmp_path / "x.json").write_text("no key")
    assert keyring.find("1" * 16) is None
    clock.now += 1000
    assert keyring.find("2" * 16) is None  # it was read now, and what was known stays
    assert all(keyring.find(key) for key in ids(keyring))


def test_a_file_that_is_no_key_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"x\.json"):
        Keyring(tmp_path, Clock())
