"""A file that was replaced or written into is told from what it was, and so are certificates that were renewed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from meshgate.rpc.tls import Identity, TlsConfig
from meshgate.runtime.files import file_stamp


def replace(path: Path) -> None:
    """Puts a file of the same size and time in its place."""
    other = path.with_suffix(".new")
    other.write_text("b")
    found = path.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def lengthen(path: Path) -> None:
    found = path.stat()
    path.write_text("aa")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def later(path: Path) -> None:
    found = path.stat()
    path.write_text("b")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


@pytest.mark.parametrize("change", [replace, lengthen, later])
def test_each_kind_of_change_is_seen(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "x"
    path.write_text("a")
    before = file_stamp.of(path)
    assert file_stamp.of(path) == before
    change(path)
    assert file_stamp.of(path) != before


def test_a_link_has_the_stamp_of_what_it_leads_to(tmp_path: Path) -> None:
    """As a mounted secret or configuration map changes: by another link."""
    for name in ("old", "new"):
        (tmp_path / name).write_text("a")
    (tmp_path / "x").symlink_to("old")
    before = file_stamp.of(tmp_path / "x")
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").replace(tmp_path / "x")
    assert file_stamp.of(tmp_path / "x") != before == file_stamp.of(tmp_path / "old")


def test_a_file_that_is_not_there_has_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_stamp.of(tmp_path / "x")


def test_a_certificate_is_read_again_though_it_is_no_newer(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("certificate", "key", "ca")]
    for path in paths:
        path.write_text("a")
    identity = Identity(TlsConfig(certificate=paths[0], key=paths[1], ca=paths[2]))
    assert (identity.changed(), identity.changed()) == (True, False)
    for path in paths:
        replace(path)
        assert (identity.changed(), identity.changed()) == (True, False)
