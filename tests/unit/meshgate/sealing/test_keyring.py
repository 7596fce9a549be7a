"""A recipient's keys: published, overlapped, deleted; and shared with the processes beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgate.runtime.config import ConfigError
from meshgate.sealing import codec
from meshgate.sealing.keyring import Keyring

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
    assert [key.suite for key in keyring.published()] == list(codec.SUITES)
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


def test_a_key_is_gone_from_disk_the_day_after_its_time(tmp_path: Path) -> None:
    """Its successors are published since day 20, so that nothing else is to be done on that day."""
    clock = Clock()
    keyring = Keyring(tmp_path, clock)
    old = ids(keyring)
    clock.now += 21 * DAY
    new = ids(keyring)
    clock.now += 9 * DAY
    keyring.renew()
    assert kept(tmp_path) == {*new}
    assert [keyring.find(key) for key in old] == [None, None]


def test_a_key_whose_time_passed_while_nothing_ran_is_gone_at_the_start(tmp_path: Path) -> None:
    clock = Clock()
    old = ids(Keyring(tmp_path, clock))
    clock.now += 30 * DAY
    new = ids(Keyring(tmp_path, clock))
    assert kept(tmp_path) == {*new}
    assert not {*old} & {*new}


def test_the_timer_deletes_and_makes_keys_though_nobody_lists_any(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring(tmp_path, clock)
    old = kept(tmp_path)
    clock.now += 20 * DAY
    keyring.tend()
    new = kept(tmp_path) - old
    assert len(new) == len(codec.SUITES)
    clock.now += 10 * DAY
    keyring.tend()
    assert kept(tmp_path) == new


def test_the_timer_deletes_what_a_process_that_is_gone_had_made(tmp_path: Path) -> None:
    clock = Clock()
    staying = Keyring(tmp_path, clock)
    other = tmp_path / "other"
    ids(Keyring(other, clock))
    clock.now += 20 * DAY
    ids(staying)
    for path in other.iterdir():
        path.rename(tmp_path / path.name)  # nobody asks for these by their id, so that nobody has read them
    clock.now += 10 * DAY
    staying.tend()
    assert {path.name for path in tmp_path.iterdir()} == {"other", *(f"{key}.json" for key in ids(staying))}


def test_a_file_that_is_no_key_keeps_no_key_beyond_its_time(tmp_path: Path) -> None:
    clock = Clock()
    keyring = Keyring(tmp_path, clock)
    old = kept(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    clock.now += 30 * DAY
    keyring.tend()
    assert not kept(tmp_path) & old


def test_one_that_starts_while_another_deletes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may be gone between the listing and the reading."""
    clock = Clock()
    running = Keyring(tmp_path, clock)
    clock.now += 30 * DAY
    read = Path.read_bytes

    def late(path: Path) -> bytes:
        monkeypatch.undo()
        running.tend()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", late)
    started = Keyring(tmp_path, clock)
    assert all(started.find(key) for key in ids(running))


def kept(directory: Path) -> set[str]:
    """The ids of the keys on disk."""
    return {path.stem for path in directory.glob("*.json")}


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
