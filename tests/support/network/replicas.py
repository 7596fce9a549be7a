"""Several replicas of a service behind one gateway, each over mutual TLS of its own; none has a model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gateway.app import Gateway
from meshgate import errors
from meshgate.rpc import status
from meshgate.rpc.server import Server
from meshgate.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2_grpc,
)
from tests.support.fixtures.scripted_service import Models
from tests.support.network import mesh as meshes

_PLENTY = {
    level: {"requests_per_second": 10_000, "burst": 10_000, "tokens_per_minute": 10_000_000}
    for level in ("tenant", "principal")
}
ASK = embedding_pb2.EmbedRequest(inputs=["one"])


class Replica(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Says its name as the model's, after `seconds`, unless it should fail."""

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        self.name = name
        self.failed = asyncio.Event()
        self.seconds = seconds
        self.error: errors.MeshError | None = None
        self.calls = 0
        self.working = asyncio.Event()
        """Set when a call has begun."""

    async def start(self) -> None:
        return None

    async def stop(self, grace: float) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(Streaming(self), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        return ("meshgate.v1.EmbeddingService", "meshgate.v1.GenerationService", "meshgate.v1.ModelService")

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Any) -> embedding_pb2.EmbedResponse:
        self.calls += 1
        self.working.set()
        if self.error is not None:
            raise self.error
        if self.seconds:
            await asyncio.sleep(self.seconds)  # what the work takes
        return embedding_pb2.EmbedResponse(model=self.name)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Any
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        async for _ in request_iterator:
            if self.error is not None:
                raise self.error
            yield embedding_pb2.EmbedStreamResponse(response=embedding_pb2.EmbedResponse(model=self.name))


class Streaming(generation_pb2_grpc.GenerationServiceServicer):
    """The replica's name, word by word; an error comes after as many words as the prompt says."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def Generate(self, request: generation_pb2.GenerateRequest, context: Any) -> generation_pb2.GenerateResponse:
        raise errors.Unimplemented("not of this double")

    async def CountTokens(
        self, request: generation_pb2.CountTokensRequest, context: Any
    ) -> generation_pb2.CountTokensResponse:
        raise errors.Unimplemented("not of this double")

    async def GenerateStream(
        self, request: generation_pb2.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[generation_pb2.GenerateStreamResponse]:
        self._replica.calls += 1
        for word in range(3):
            if self._replica.error is not None and word == int(request.request.prompt):
                raise self._replica.error
            yield generation_pb2.GenerateStreamResponse(deltas=[generation_pb2.CandidateDelta(text=self._replica.name)])


class Wire:
    """Stands between the gateway and a replica, so that the replica can be lost as one is whose machine dies."""

    def __init__(self) -> None:
        self.port = 0
        self.connections: list[asyncio.WriteTransport] = []
        """The gateway's, so far."""
        self._transports: set[asyncio.WriteTransport] = set()
        self._copies: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, target: int) -> None:
        """Takes connections for the replica at port `target`."""

        async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections.append(writer.transport)
            there, back = await asyncio.open_connection("127.0.0.1", target)
            self._transports |= {writer.transport, back.transport}
            for source, sink in ((reader, back), (there, writer)):
                self._copies.add(asyncio.create_task(_copy(source, sink)))

        self._server = await asyncio.start_server(joined, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Breaks all connections, with what is on them, and takes no more."""
        if self._server is not None:
            self._server.close()
        for transport in self._transports:
            transport.abort()
        await asyncio.gather(*self._copies, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()
    sink.close()


@dataclass
class Fleet:
    """A gateway before replicas; `mesh` names the gateway alone."""

    mesh: meshes.Mesh
    replicas: Mapping[str, Replica]
    servers: Mapping[str, Server]
    wires: Mapping[str, Wire]
    stub: Any
    streams: Any

    async def ask(self) -> str:
        """Who answered, or the reason of the refusal."""
        try:
            reply = await self.stub.Embed(ASK, metadata=self.mesh.auth(), timeout=20)
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error).reason
        return str(reply.model)

    async def stream(self, words_before_error: int) -> str:
        """What a stream brought: a letter a word, and the reason of its refusal if there was one."""
        request = generation_pb2.GenerateRequest(prompt=str(words_before_error))
        call = self.streams.GenerateStream(
            generation_pb2.GenerateStreamRequest(request=request), metadata=self.mesh.auth(), timeout=20
        )
        said = ""
        try:
            async for reply in call:
                said += reply.deltas[0].text
        except grpc.aio.AioRpcError as error:
            said += " " + status.from_rpc_error(error).reason
        return said

    async def spread(self, calls: int, callers: int = 4) -> dict[str, int]:
        """How often each answered `calls` calls, or which refusals came instead."""
        found: dict[str, int] = {}
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                answer = await self.ask()
                found[answer] = found.get(answer, 0) + 1

        await asyncio.gather(*(caller() for _ in range(callers)))
        return found

    async def until(self, wanted: set[str]) -> None:
        """Returns once a round of calls is answered by these and no others."""
        async with asyncio.timeout(20):
            while set(await self.spread(12)) != wanted:  # noqa: ASYNC110 - it is another side's doing
                await asyncio.sleep(0.02)


@asynccontextmanager
async def fleet(
    home: Path,
    replicas: Sequence[Replica],
    *,
    certificates: Mapping[str, str] | None = None,
    shared_keys: bool = False,
    server: Mapping[str, Any] | None = None,
    **backend: Any,
) -> AsyncIterator[Fleet]:
    """A gateway before `replicas`. `certificates` is replica to its name; `server` is of all replicas' own sections."""
    meshes.prepare(home)
    async with AsyncExitStack() as stack:
        servers, wires = {}, {}
        for replica in replicas:
            made = meshes.identity(home, (certificates or {}).get(replica.name, "embedding"))
            keys = "sealing-embedding" if shared_keys else f"sealing-{replica.name}"
            changes = {"tls": made, "sealing": {"keys": home / "keys" / keys}, **(server or {})}
            servers[replica.name] = await stack.enter_async_context(
                meshes.serving(home, "embedding", replica, **changes)
            )
            wires[replica.name] = wire = Wire()
            await wire.start(servers[replica.name].port)
            stack.push_async_callback(wire.cut)
        target = "ipv4:" + ",".join(f"127.0.0.1:{wire.port}" for wire in wires.values())
        section = {"target": target, "server_name": "embedding", **backend}
        backends = {"embedding": section, "generation": section}
        config = meshes.gateway_config(home, {}, backends=backends, limits=_PLENTY)
        gateway = Gateway(config)
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        mesh = meshes.Mesh(home, gateway, dict.fromkeys(backends, servers[replicas[0].name]))
        await meshes.ready(mesh)
        channel = await stack.enter_async_context(mesh.channel())
        stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        streams = generation_pb2_grpc.GenerationServiceStub(channel)
        yield Fleet(mesh, {replica.name: replica for replica in replicas}, servers, wires, stub, streams)
