"""Connections: too many, those that never say who they are, and those that speak the wrong TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from meshgate import errors
from meshgate.v1 import generation_pb2_grpc
from tests.attack.bystander import HELLO, SECONDS, attacked, served, until
from tests.attack.http2 import connected
from tests.integration.mesh import Mesh, refused


async def silent(mesh: Mesh) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", mesh.gateway.port)


async def ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


async def test_connections_that_say_nothing_are_closed(tmp_path: Path) -> None:
    async with attacked(tmp_path, handshake_seconds=0.3) as mesh:
        opened = [await silent(mesh) for _ in range(200)]
        await served(mesh)
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*(ended(reader) for reader, _ in opened))
        for _, writer in opened:
            writer.transport.abort()


async def test_connections_beyond_the_bound_are_closed_at_once(tmp_path: Path) -> None:
    """Who holds one of those that there may be keeps it; when they go, there is room again."""
    async with attacked(tmp_path, max_connections=8, handshake_seconds=30) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        await stub.Generate(HELLO, metadata=mesh.auth())
        opened = [await silent(mesh) for _ in range(40)]
        readers = [asyncio.create_task(ended(reader)) for reader, _ in opened]
        await until(lambda: sum(reader.done() for reader in readers) >= 30)
        await stub.Generate(HELLO, metadata=mesh.auth())
        for _, writer in opened:
            writer.transport.abort()
        await asyncio.gather(*readers)


async def test_idle_peers_keep_nobody_out(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(mesh)) for _ in range(50)]
        for peer in peers:
            await peer.begin()
        await served(mesh)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
async def test_older_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with attacked(tmp_path) as mesh:
        context = ssl.create_default_context(cadata=mesh.ca.decode())
        context.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", mesh.gateway.port, ssl=context, server_hostname="localhost")


async def test_more_calls_than_there_may_be(tmp_path: Path) -> None:
    async with attacked(tmp_path, max_calls=3) as mesh, mesh.channel() as channel:
        embedding = channel.stream_stream("/meshgate.v1.EmbeddingService/EmbedStream")
        waiting = [embedding(metadata=mesh.auth()) for _ in range(3)]
        first = b"\x0a\x03\x0a\x01a"
        for stream in waiting:
            await stream.write(first)
            await stream.read()
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        error = await refused(stub.Generate(HELLO, metadata=mesh.auth()))
        assert isinstance(error, errors.Unavailable)
        assert (error.reason, error.retry_after) == ("OVERLOADED", 1.0)
        await until(lambda: "OVERLOADED" in [record.get("reason") for record in mesh.records()])
        for stream in waiting:
            stream.cancel()
