"""What libraries write to standard error becomes lines of the log, a bounded number a second."""

from __future__ import annotations

import json
import select

import pytest

from meshgate.runtime.logs.stderr_reader import Bound, Lines, described

FOREIGN = [
    (
        b"E1130 22:38:08.398798   16478 hpack_parser.cc:1048] Error parsing",
        "error",
        "hpack_parser.cc:1048] Error parsing",
    ),
    (b"I1130 22:53:31.137755 10287 a.cc:1] x", "info", "a.cc:1] x"),
    (b"WARNING: All log messages before absl::InitializeLog()", "warning", "WARNING: All log messages before absl::"),
    (b"Fatal Python error: Segmentation fault", "warning", "Fatal Python error"),
    (b"\x1b[2Jintact\xff", "warning", "\x1b[2Jintact\\xff"),
]


@pytest.mark.parametrize(("line", "level", "begins"), FOREIGN)
def test_a_line_is_json_whatever_it_holds(line: bytes, level: str, begins: str) -> None:
    made = described("gateway", line)
    said = json.loads(made)
    assert (said["level"], said["service"], said["logger"]) == (level, "gateway", "stderr")
    assert said["message"].startswith(begins)
    assert all(32 <= byte < 127 for byte in made.rstrip(b"\n"))


@pytest.mark.parametrize("peer", ["ipv4:192.0.2.1:443", "ipv6:%5B2001:db8::1%5D:443", "unix:/run/x.sock"])
def test_nobody_reads_a_peers_address(peer: str) -> None:
    said = json.loads(described("gateway", f"E1130 22:38:08.398798 1 a.cc:1] {peer}, failed".encode()))
    assert said["message"] == "a.cc:1] (peer), failed"


def test_a_long_line_is_cut() -> None:
    lines = Lines()
    assert lines.of(b"x" * 4000) == []
    assert [len(line) for line in lines.of(b"x" * 4000)] == [8000]
    assert len(described("gateway", b"x" * 100_000)) < 5000


def test_lines_end_with_either_character_and_the_last_without_any() -> None:
    lines = Lines()
    assert lines.of(b"10%\r20%\r\n\nthe") == [b"10%", b"20%"]
    assert lines.of(b" rest") == []
    assert lines.end() == [b"the rest"]


@pytest.mark.parametrize(
    "line", [b"\0" * 100_000, b"\xff" * 5000, "\U0001f600".encode() * 5000, b"x" * 5000, b'"' * 4096]
)
def test_a_line_goes_into_a_pipe_whole(line: bytes) -> None:
    made = described("gateway", line)
    assert 3500 < len(made) <= select.PIPE_BUF
    json.loads(made)


def test_a_burst_passes_then_so_many_a_second_and_the_last_are_kept() -> None:
    bound = Bound(0.0)
    assert taken(bound, 0.0) == 100
    assert bound.last[-1] == b"999"
    assert len(bound.last) == 50
    assert bound.left_out == 900
    bound.told(0.0)
    assert (bound.left_out, len(bound.last)) == (0, 0)
    assert taken(bound, 1.0) == 20
    assert taken(bound, 1000.0) == 100


def taken(bound: Bound, now: float) -> int:
    """How many of a thousand lines pass."""
    passed = 0
    for number in range(1000):
        if bound.take(now):
            passed += 1
        else:
            bound.leave_out(b"%d" % number)
    return passed


def test_what_is_left_out_is_due_once_a_second() -> None:
    bound = Bound(0.0)
    assert not bound.due(5.0)
    bound.leave_out(b"x")
    assert bound.due(5.0)
    bound.told(5.0)
    bound.leave_out(b"x")
    assert (bound.due(5.9), bound.due(6.0)) == (False, True)
