"""Deadlines that are over, never come or are none at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network.bystander import GENERATE, HELLO, attacked, in_flight, until
from tests.support.network.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    block,
    call,
    connected,
    frame,
)
from tests.support.network.mesh import Mesh


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with attacked(tmp_path) as made:
        yield made


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.000001, 0.001])
async def test_one_that_is_over(mesh: Mesh, seconds: float) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        for _ in range(20):
            call = stub.Generate(HELLO, metadata=mesh.auth(), timeout=seconds)
            assert await call.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.OK}


@pytest.mark.parametrize("seconds", [3600.0, 1e8])
async def test_one_that_is_far_away(mesh: Mesh, seconds: float) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        reply = await stub.Generate(HELLO, metadata=mesh.auth(), timeout=seconds)
    assert reply.candidates[0].text == "hello"


@pytest.mark.parametrize("text", ["0n", "1n", "-1S", "99999999H", "999999999999S", "x", "", "1", "S", "1e9S", "٣S"])
async def test_one_as_no_client_would_write_it(mesh: Mesh, text: str) -> None:
    """Whatever it says, the call ends: well, late, or as one that is malformed."""
    message = HELLO.SerializeToString()
    async with connected(mesh) as peer:
        await peer.begin()
        timeout = text.encode().decode("latin-1")
        headers = block(call(GENERATE, **dict(mesh.auth()), **{"grpc-timeout": timeout}))
        body = b"\x00" + len(message).to_bytes(4) + message
        await peer.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, END_STREAM, 1, body))
        async for kind, flags, stream, _ in peer.frames():
            if stream == 1 and (kind == RST_STREAM or flags & END_STREAM):
                break
        else:
            raise AssertionError("no end")


async def test_one_that_passes_while_the_caller_is_served(mesh: Mesh, tmp_path: Path) -> None:
    """The work ends with it, the record says so, and the place is free."""
    application = ScriptedApplication()
    async with attacked(tmp_path / "other", application) as other, other.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="a b"))
        stream = stub.GenerateStream(request, metadata=other.auth(), timeout=3)
        await stream.read()
        assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await application.abandoned.wait()
        await until(lambda: in_flight(other) == 0)
        ends = [record for record in other.records() if record["event"] == "ended"]
        assert [record["status"] for record in ends] == ["DEADLINE_EXCEEDED"]
