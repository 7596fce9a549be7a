"""Every line of a process log is JSON, whatever wrote it, and no log is thrown away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.runtime.child import log_file
from meshgate.runtime.child.log_file import LogFile

OURS = b'{"time": "now", "level": "info", "message": "serving"}'
FOREIGN = {
    "a progress bar": b"\rLoading weights:  10%|#  |\rLoading weights: 100%|###|\n",
    "a warning": b"/x/y.py:3: UserWarning: old\n  warnings.warn(\n",
    "gRPC": b"E1130 22:37:30.450313 15303 http_connect.cc:114] handshake failed\n",
    "faulthandler": b"Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n",
    "Valkey": b"12:M 30 Nov 2026 22:00:00.000 * Ready to accept connections unix\n",
    "JSON that is no object": b'[1]\n"x"\n3\n',
    "JSON that is cut": b'{"message": "x"\n',
    "bytes": b"\xff\xfe\x00\x1b[2J\x7f\n",
    "without an end": b"last words",
}


def written(path: Path, *parts: bytes) -> list[dict[str, Any]]:
    log = LogFile(path, "generation")
    for part in parts:
        log.data_received(part)
    log.connection_lost(None)
    assert log.closed.is_set()
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_what_is_not_ours_is_wrapped(tmp_path: Path, data: bytes) -> None:
    lines = written(tmp_path / "log", OURS + b"\n", data)
    assert lines[0]["message"] == "serving"
    assert len(lines) > 1
    for line in lines[1:]:
        assert (line["logger"], line["service"], line["level"]) == ("stderr", "generation", "warning")
    assert b"\x1b" not in (tmp_path / "log").read_bytes()
    assert b"\x7f" not in (tmp_path / "log").read_bytes()


def test_ours_is_left_as_it_is(tmp_path: Path) -> None:
    written(tmp_path / "log", OURS[:10], OURS[10:] + b"\n" + OURS, b"\n")
    assert (tmp_path / "log").read_bytes() == (OURS + b"\n") * 2


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_whatever_comes_is_json_lines_however_it_is_cut(parts: list[bytes]) -> None:
    made = log_file._BREAKS.split(b"".join(parts))
    said = [log_file.unwrapped(json.dumps(json.loads(log_file._wrapped(line, "x")))) for line in made]
    assert said == [line.decode(errors="replace") for line in made]


def test_a_line_without_end_is_bounded(tmp_path: Path) -> None:
    lines = written(tmp_path / "log", *(b"x" * 30_000 for _ in range(10)))
    assert sum(len(line["message"]) for line in lines) == 300_000
    assert max(len(line["message"]) for line in lines) == 65_536


def test_a_log_is_the_owners_and_is_continued(tmp_path: Path) -> None:
    (tmp_path / "log").touch(0o644)
    for _ in range(3):
        written(tmp_path / "log", OURS + b"\n")
    assert (tmp_path / "log").read_bytes() == (OURS + b"\n") * 3
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_log_is_put_aside_only_when_it_is_large_and_none_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "gateway.log"
    log_file.rotate(path, longest=10)
    for number in range(12):
        path.write_bytes(b"%010d" % number)
        log_file.rotate(path, longest=10)
        assert path.exists()
        path.write_bytes(b"%011d" % number)
        log_file.rotate(path, longest=10)
        assert not path.exists()
    assert {file.name for file in tmp_path.iterdir()} == {f"gateway.log.{number}" for number in range(1, 13)}
    assert (tmp_path / "gateway.log.12").read_bytes() == b"%011d" % 11
