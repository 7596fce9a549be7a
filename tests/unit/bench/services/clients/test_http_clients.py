"""The least of two protocols that the peers are called with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from bench.services.clients import http, v2

TENSOR = {"name": (1, "STRING", False), "datatype": (2, "STRING", False), "shape": (3, "INT64", True)}


def v2_request() -> type:
    """ModelInferRequest of the KServe protocol, as far as it is used: the official numbers and types."""
    file = descriptor_pb2.FileDescriptorProto(name="v2.proto", package="v2", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in {
        "Contents": {"bytes_contents": (8, "BYTES", True)},
        "Tensor": {**TENSOR, "contents": (5, ".v2.Contents", False)},
        "Request": {"model_name": (1, "STRING", False), "inputs": (5, ".v2.Tensor", True)},
    }.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = made.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind.startswith("."):
                field.type, field.type_name = kinds.TYPE_MESSAGE, kind
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type = message_factory.GetMessageClass(pool.FindMessageTypeByName("v2.Request"))
    return found


@pytest.mark.parametrize("text", ["a", "schön", "word " * 500])
def test_v2_requests_are_what_the_protocol_says(text: str) -> None:
    parsed = v2_request().FromString(v2.request("minilm", text))  # type: ignore[attr-defined]
    (tensor,) = parsed.inputs
    assert parsed.model_name == "minilm"
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("text", "BYTES", [1, 1])
    assert list(tensor.contents.bytes_contents) == [text.encode()]


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
