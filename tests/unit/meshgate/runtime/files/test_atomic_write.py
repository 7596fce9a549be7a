"""A file is the old one or the new one, whole, whatever moment the writer dies at; a secret is never readable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshgate.runtime.files import atomic_write
from meshgate.runtime.files.atomic_write import Sync

SIZE = 4_000_000
WRITER = f"""
import sys
from itertools import cycle
from pathlib import Path
from meshgate.runtime.files import atomic_write
for letter in cycle((b"a", b"b")):
    atomic_write.write(Path(sys.argv[1]), letter * {SIZE})
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("sync", Sync)
def test_the_new_content_takes_the_name_and_no_draft_stays(file: Path, sync: Sync) -> None:
    atomic_write.write(file, b"new", sync=sync)
    assert (file.read_bytes(), names(file.parent)) == (b"new", {"file"})


@pytest.mark.parametrize("step", ["fsync", "fdopen"])
def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_draft(
    file: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        atomic_write.write(file, b"new")
    assert (file.read_bytes(), names(file.parent)) == (b"old", {"file"})


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for number in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)])
        while not file.exists():
            time.sleep(0.01)
        time.sleep(0.013 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = file.read_bytes()
        assert content in (b"a" * SIZE, b"b" * SIZE)


def test_the_content_is_on_disk_before_it_takes_the_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(file.read_bytes()))
    atomic_write.write(file, b"new", sync=Sync.NAME)
    assert seen == [b"old", b"new"]  # the draft's content, then the directory


def test_a_secret_is_its_owners_alone_from_its_first_byte_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: modes.append(os.fstat(descriptor).st_mode & 0o777))
    atomic_write.write(file, b"secret", mode=atomic_write.OWNER_ONLY)
    assert (modes, file.stat().st_mode & 0o777) == ([0o600], 0o600)


@pytest.mark.parametrize(("ignore", "mode"), [(False, 0o600), (True, 0o644)])
def test_the_umask_counts_unless_the_writer_says_otherwise(file: Path, ignore: bool, mode: int) -> None:
    before = os.umask(0o077)
    try:
        atomic_write.write(file, b"new", ignore_umask=ignore)
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == mode


def test_of_two_that_create_a_file_the_first_wins(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert atomic_write.create(file, b"first")
    assert not atomic_write.create(file, b"second")
    assert (file.read_bytes(), names(tmp_path), file.stat().st_mode & 0o777) == (b"first", {"file"}, 0o600)
