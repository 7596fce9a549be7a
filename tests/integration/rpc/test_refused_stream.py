"""A service that ends a stream while its caller still sends: the caller hears the service's own reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import client, errors
from meshgate.client import aio
from meshgate.rpc import status
from meshgate.rpc.private import stream_status
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, models_pb2_grpc
from tests.support.fixtures.scripted_service import Models
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

TRIES = 20
REQUEST = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["x" * 2000]))
REQUESTS = [REQUEST] * 50


class Full(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Has no room for streams: it refuses each once it has begun."""

    def __init__(self) -> None:
        self.name = "full"
        self.failed = asyncio.Event()

    async def start(self) -> None:
        return None

    async def stop(self, grace: float) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        return ("meshgate.v1.EmbeddingService", "meshgate.v1.ModelService")

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Any) -> embedding_pb2.EmbedResponse:
        return embedding_pb2.EmbedResponse()

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Any
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        async for message in request_iterator:
            if message.request.inputs:
                raise errors.NotFound("full", reason="FULL")  # a kind that nobody tries again
            yield embedding_pb2.EmbedStreamResponse()


def full(home: Path) -> AbstractAsyncContextManager[Mesh]:
    return meshes.mesh(home, {"embedding": Full()})


def connected(mesh: Mesh, **given: Any) -> grpc.aio.Channel:
    return aio.connect(mesh.target, ca=mesh.ca, **given)


async def outcome(call: Any) -> str:
    """The reason that a stream ends with."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error).reason
    return "served"


async def outcomes(start: Callable[[], Any]) -> set[str]:
    return set(await asyncio.gather(*(outcome(start()) for _ in range(TRIES))))


async def written(stub: Any) -> str:
    """The same where the caller writes by itself, until it may no more."""
    call = stub.EmbedStream(timeout=20)
    try:
        for request in REQUESTS:
            await call.write(request)
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # the reader learns why
    return await outcome(call)


async def test_the_gateway_passes_the_services_reason_on(tmp_path: Path) -> None:
    async with full(tmp_path) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        metadata = mesh.auth()
        start = lambda: stream_status.preserve_status(stub.EmbedStream(iter(REQUESTS), metadata=metadata, timeout=20))  # noqa: E731
        assert await outcomes(start) == {"FULL"}
        refused = [record for record in mesh.records() if record.get("reason") == "FULL"]
        assert len(refused) == TRIES


Ask = Callable[[Any], Awaitable[set[str]]]


async def iterating(stub: Any) -> set[str]:
    return await outcomes(lambda: stub.EmbedStream(iter(REQUESTS), timeout=20))


async def writing(stub: Any) -> set[str]:
    return set(await asyncio.gather(*(written(stub) for _ in range(TRIES))))


@pytest.mark.parametrize("ask", [iterating, writing])
@pytest.mark.parametrize("sealed", [False, True])
async def test_the_sdk_hears_it(tmp_path: Path, ask: Ask, sealed: bool) -> None:
    async with full(tmp_path) as mesh, connected(mesh, token=mesh.token(), sealed=sealed) as channel:
        assert await ask(embedding_pb2_grpc.EmbeddingServiceStub(channel)) == {"FULL"}


async def test_the_sdk_hears_it_where_the_caller_brings_the_token(tmp_path: Path) -> None:
    async with full(tmp_path) as mesh, connected(mesh) as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        metadata = mesh.auth()
        found = await outcomes(lambda: stub.EmbedStream(iter(REQUESTS), metadata=metadata, timeout=20))
        assert found == {"FULL"}


def blocking(mesh: Mesh) -> Iterator[str]:
    with client.connect(mesh.target, ca=mesh.ca, token=mesh.token()) as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        for _ in range(TRIES):
            try:
                list(stub.EmbedStream(iter(REQUESTS), timeout=20))
            except grpc.RpcError as error:
                yield status.from_rpc_error(error).reason


async def test_the_blocking_sdk_hears_it(tmp_path: Path) -> None:
    async with full(tmp_path) as mesh:
        assert await asyncio.to_thread(list, blocking(mesh)) == ["FULL"] * TRIES
