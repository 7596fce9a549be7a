"""What is too large is refused with a clear status, whatever it is, and costs nobody else a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc
from tests.support.network.bystander import HELLO, attacked, served
from tests.support.network.mesh import Mesh, refused


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with attacked(tmp_path, max_message_bytes=100_000, max_metadata_bytes=10_000) as made:
        yield made


async def code_of(mesh: Mesh, *metadata: tuple[str, str | bytes]) -> grpc.StatusCode:
    """How a call with this metadata ends."""
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.Generate(HELLO, metadata=(*mesh.auth(), *metadata), timeout=10)
        code: grpc.StatusCode = await call.code()
        return code


SMALL: dict[str, list[tuple[str, str | bytes]]] = {
    "one": [("x-note", "n" * 4000)],
    "many": [(f"x-{number}", "n") for number in range(50)],
    "the same again": [("x-note", str(number)) for number in range(50)],
    "binary": [("x-note-bin", bytes(range(256)) * 4)],
}
LARGE: dict[str, list[tuple[str, str | bytes]]] = {
    "one": [("x-note", "n" * 11_000)],
    "a long name": [("x-" + "n" * 11_000, "1")],
    "many": [(f"x-{number}", "n") for number in range(400)],  # 32 bytes each beside name and value
    "the same again": [("x-note", str(number)) for number in range(400)],
    "binary": [("x-note-bin", bytes(range(256)) * 40)],
    "a megabyte": [("x-note", "n" * 1_000_000)],
}


@pytest.mark.parametrize("name", SMALL)
async def test_metadata_that_fits(mesh: Mesh, name: str) -> None:
    assert await code_of(mesh, *SMALL[name]) is grpc.StatusCode.OK


@pytest.mark.parametrize("name", LARGE)
async def test_metadata_that_does_not(mesh: Mesh, name: str) -> None:
    """gRPC refuses it before there is a call, always and not by chance. Only the caller hears of it."""
    for _ in range(3):
        code = await code_of(mesh, *LARGE[name])
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_token_that_is_too_long(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        error = await refused(stub.Generate(HELLO, metadata=mesh.auth("a" * 8192)))
    assert (type(error), error.reason) == (errors.Unauthenticated, "TOKEN_MALFORMED")


@pytest.mark.parametrize("size", [100_001, 150_000, 199_000])
async def test_a_message_that_is_somewhat_too_large(mesh: Mesh, size: int) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt="x" * size)
        error = await refused(stub.Generate(request, metadata=mesh.auth()))
    assert (type(error), error.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")
    assert mesh.record_of(error)["bytes_in"] >= size


async def test_messages_that_are_far_too_large_at_once(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateRequest(prompt="x" * 5_000_000)
        calls = [stub.Generate(request, metadata=mesh.auth()) for _ in range(10)]
        await served(mesh)
        for call in calls:
            error = await refused(call)
            assert (type(error), error.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")


async def test_a_later_message_that_is_too_large(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stream = stub.EmbedStream(metadata=mesh.auth())
        small = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["a"]))
        large = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["a" * 300_000]))
        await stream.write(small)
        assert (await stream.read()).response.embeddings[0].tokens == 1
        await stream.write(large)
        error = await refused(stream.read())
    assert (type(error), error.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")
