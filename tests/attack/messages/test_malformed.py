"""Bytes that are no message, or not the one that was asked for: INVALID_ARGUMENT, a record, and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.v1 import generation_pb2
from tests.support.network.bystander import GENERATE, attacked, served
from tests.support.network.mesh import Mesh, refused

STREAM = "/meshgate.v1.EmbeddingService/EmbedStream"
SEALED = "/meshgate.v1.SealedService/Call"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with attacked(tmp_path) as made:
        yield made


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return bytes((number << 3 | 2,)) + length(len(payload)) + payload


def length(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


PROMPT = generation_pb2.GenerateRequest(prompt="hello").SerializeToString()
BROKEN = {
    "truncated": PROMPT[:-1],
    "a length beyond the end": b"\x0a\xff\xff\xff\xff\x07abc",
    "a negative length": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    "a varint without end": b"\x08" + b"\xff" * 20,
    "field zero": b"\x02\x01x",
    "a wire type that there is not": b"\x0f",
    "an end of a group that never began": b"\x0c",
    "groups without end": b"\x0b" * 5000,
    "text that is no utf-8": field(2, b"\xff\xfe\xfd"),
    "a surrogate": field(2, b"\xed\xa0\x80"),
    "noise": bytes(range(256)) * 10,
}


async def ask(mesh: Mesh, path: str, message: bytes) -> errors.MeshError:
    async with mesh.channel() as channel:
        return await refused(channel.unary_unary(path)(message, metadata=mesh.auth(), timeout=20))


@pytest.mark.parametrize("name", BROKEN)
async def test_a_message_that_is_none(mesh: Mesh, name: str) -> None:
    error = await ask(mesh, GENERATE, BROKEN[name])
    assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")
    record = mesh.record_of(error)
    assert (record["event"], record["bytes_in"]) == ("refused", len(BROKEN[name]))


@pytest.mark.parametrize("name", ["truncated", "groups without end", "noise"])
async def test_an_envelope_that_is_none(mesh: Mesh, name: str) -> None:
    error = await ask(mesh, SEALED, BROKEN[name])
    assert isinstance(error, errors.InvalidArgument)
    assert mesh.record_of(error)["event"] == "refused"


@pytest.mark.parametrize("depth", [200, 10_000, 1_000_000])
async def test_a_message_that_is_deep(mesh: Mesh, depth: int) -> None:
    """Protobuf's own bound is 100; what is deeper is no message, and no stack is overrun."""
    error = await ask(mesh, GENERATE, b"\x0b" * depth + b"\x0c" * depth)
    assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")


async def test_a_message_of_a_million_fields(mesh: Mesh) -> None:
    """Small to send and large to hold. It is answered, whatever it asks for, and others are meanwhile."""
    message = generation_pb2.GenerateRequest(prompt="hello").SerializeToString() + field(15, b"") * 1_000_000
    async with mesh.channel() as channel:
        call = channel.unary_unary(GENERATE)(message, metadata=mesh.auth(), timeout=20)
        await served(mesh)
        assert await call.code() in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


async def test_no_message_at_all(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stream: Any = channel.stream_stream(STREAM)(metadata=mesh.auth(), timeout=20)
        await stream.done_writing()
        error = await refused(stream.read())
    assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")


async def test_a_later_message_that_is_none(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stream: Any = channel.stream_stream(STREAM)(metadata=mesh.auth(), timeout=20)
        await stream.write(field(1, field(1, b"a")))
        await stream.read()
        await stream.write(BROKEN["truncated"])
        error = await refused(stream.read())
    assert isinstance(error, errors.MeshError)
    assert mesh.record_of(error)["event"] == "ended"
