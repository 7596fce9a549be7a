"""Standard output as a sink: whole lines, or an error in time; after one, whole lines again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from gateway.audit.sinks.sink import SinkFailed
from gateway.audit.sinks.stdout_sink import StdoutSink

ROOM = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of one that holds a page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, ROOM)
    os.set_blocking(reader, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def lines(reader: int) -> list[bytes]:
    found = os.read(reader, 1 << 20)
    assert found.endswith(b"\n")
    return found.split(b"\n")[:-1]


def test_a_line_a_record(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    StdoutSink(1, writer).write([b"one", b"two"])
    assert lines(reader) == [b"one", b"two"]


def test_a_full_pipe_is_an_error_in_time_and_tears_no_line(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StdoutSink(0.05, writer)
    records = [b"%d" % number * 100 for number in range(9)]
    for record in [b"x" * (ROOM - 1), records[0]]:
        try:
            sink.write([record])
        except SinkFailed as error:
            assert "has no reader" in str(error)
            break
    else:
        pytest.fail("a full pipe took more")
    assert lines(reader) == [b"x" * (ROOM - 1)]
    sink.write(records)
    assert lines(reader) == records


def test_what_a_long_line_left_is_ended_before_the_next(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = StdoutSink(0.05, writer)
    with pytest.raises(SinkFailed):
        sink.write([b"x" * 3 * ROOM])
    torn = os.read(reader, 1 << 20)
    assert torn == b"x" * ROOM
    sink.write([b"next"])
    assert lines(reader) == [b"", b"next"]


def test_a_reader_that_left_is_an_error(pipe: tuple[int, int]) -> None:
    _, writer = os.pipe()
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(OSError, match="Broken pipe"):
        StdoutSink(1, writer).write([b"x"])
    os.close(writer)
