"""The least of two protocols that the peers are called with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from bench.services.clients import http, v2


def test_a_v2_request_is_what_the_protocol_says_byte_by_byte() -> None:
    """The field numbers and wire types of open_inference_grpc.proto: field 1 is 0x0A, and so on."""
    contents = b"\x42\x06sch\xc3\xb6n"  # bytes_contents = 8
    tensor = b"\x0a\x04text" + b"\x12\x05BYTES" + b"\x1a\x02\x01\x01" + b"\x2a\x08" + contents
    assert v2.request("minilm", "sch\u00f6n") == b"\x0a\x06minilm" + b"\x2a\x1b" + tensor


def test_a_v2_request_carries_a_long_text_whole() -> None:
    assert ("word " * 500).encode() in v2.request("minilm", "word " * 500)


@asynccontextmanager
async def server(answers: Sequence[bytes]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Sends what is given, one answer a request, and closes the connection after an empty one; its port, and what it
    heard.
    """
    left, heard = list(answers), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:"), 0)
                heard.append(await reader.readexactly(length))
                answer = left.pop(0)
                writer.write(answer)
                if answer.endswith(b"!"):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with made:
        yield made.sockets[0].getsockname()[1], heard


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"


async def test_answers_come_whole_or_in_parts_on_one_connection() -> None:
    async with server([whole(b"first"), CHUNKED, whole(b"third")]) as (port, heard):
        connection = http.Connection(port)
        assert await connection.post("/", b"1") == b"first"
        assert [part async for part in connection.stream("/", b"22")] == [b"abc", b"0123456789"]
        assert await connection.post("/", b"") == b"third"
        await connection.close()
    assert heard == [b"1", b"22", b""]


async def test_a_connection_that_was_closed_meanwhile_is_opened_anew() -> None:
    async with server([whole(b"bye!"), whole(b"again")]) as (port, _):
        connection = http.Connection(port)
        assert await connection.post("/", b"") == b"bye!"
        assert await connection.post("/", b"") == b"again"
        await connection.close()


async def test_an_error_is_raised_with_what_was_said() -> None:
    async with server([whole(b"too long", "400 Bad Request")]) as (port, _):
        connection = http.Connection(port)
        with pytest.raises(http.HttpError, match="400: too long"):
            await connection.post("/", b"")
        await connection.close()


def test_events_that_came_together_are_told_apart() -> None:
    part = b'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: [DONE]\n\n'
    assert http.events(part) == [{"a": 1}, {"a": 2}]
