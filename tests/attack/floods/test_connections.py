"""Connections: too many, those that never say who they are, and those that speak the wrong TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.v1 import generation_pb2_grpc
from tests.support.network.bystander import HELLO, SECONDS, attacked, in_flight, served, until
from tests.support.network.http2_peer import (
    ACK,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    SETTINGS,
    Peer,
    block,
    call,
    connected,
    frame,
)
from tests.support.network.mesh import Mesh, refused

EMBED_STREAM = "/meshgate.v1.EmbeddingService/EmbedStream"
LETTER = b"\x0a\x03\x0a\x01a"
"""A request to embed one letter."""


async def silent(mesh: Mesh) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", mesh.gateway.port)


async def ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


async def test_connections_that_say_nothing_are_closed(tmp_path: Path) -> None:
    async with attacked(tmp_path, handshake_seconds=1) as mesh:
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
        await room_again(mesh)


async def room_again(mesh: Mesh) -> None:
    """Waits until the gateway has noticed the ends of connections and takes a new one."""
    async with mesh.channel() as another:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(another)
        await stub.Generate(HELLO, metadata=mesh.auth(), wait_for_ready=True, timeout=SECONDS)


async def test_idle_peers_keep_nobody_out(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(mesh)) for _ in range(50)]
        for peer in peers:
            await peer.begin()
        await served(mesh)


async def test_a_connection_without_calls_is_closed_and_one_with_a_call_is_not(tmp_path: Path) -> None:
    async with attacked(tmp_path, max_connection_idle_seconds=1) as mesh, mesh.channel() as channel:
        stream = await talking(mesh, channel)
        async with connected(mesh) as peer, asyncio.timeout(SECONDS):
            await peer.begin()
            await peer.send(frame(SETTINGS, ACK, 0))  # or it would be closed for want of that
            assert (await peer.closed())[8:] == b"connection idle"
        await still_talking(stream)


async def test_a_connection_is_closed_at_its_age_though_calls_go_on(tmp_path: Path) -> None:
    """It is told first, so that a caller who means well loses nothing; who stays is cut when the drain is over."""
    async with attacked(tmp_path, max_connection_age_seconds=1, drain_seconds=6) as mesh, mesh.channel() as channel:
        headers = block(call(EMBED_STREAM, **dict(mesh.auth())))
        stream = await talking(mesh, channel)
        async with connected(mesh) as peer, asyncio.timeout(SECONDS):
            await peer.begin()
            await peer.send(frame(SETTINGS, ACK, 0), frame(HEADERS, END_HEADERS, 1, headers))
            assert (await told_to_go(peer))[8:] == b"max_age"
            await still_talking(stream)
            await peer.closed()


async def talking(mesh: Mesh, channel: Any) -> Any:
    """A stream that was answered once."""
    stream = channel.stream_stream(EMBED_STREAM)(metadata=mesh.auth())
    await stream.write(LETTER)
    assert await stream.read()
    return stream


async def still_talking(stream: Any) -> None:
    await stream.write(LETTER)
    assert await stream.read()
    await stream.done_writing()
    assert await stream.code() == grpc.StatusCode.OK


async def told_to_go(peer: Peer) -> bytes:
    """The payload of the first GOAWAY; what follows its first eight bytes is why (RFC 9113 section 6.8)."""
    async for kind, _, _, payload in peer.frames():
        if kind == GOAWAY:
            return payload
    raise AssertionError("closed without a word")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
async def test_older_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with attacked(tmp_path) as mesh:
        context = ssl.create_default_context(cadata=mesh.ca.decode())
        context.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", mesh.gateway.port, ssl=context, server_hostname="localhost")


async def test_more_calls_than_there_may_be(tmp_path: Path) -> None:
    async with attacked(tmp_path, max_calls=3) as mesh, mesh.channel() as channel:
        waiting = [await talking(mesh, channel) for _ in range(3)]
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        error = await refused(stub.Generate(HELLO, metadata=mesh.auth()))
        assert isinstance(error, errors.Unavailable)
        assert (error.reason, error.retry_after) == ("OVERLOADED", 1.0)
        await until(lambda: "OVERLOADED" in [record.get("reason") for record in mesh.records()])
        for stream in waiting:
            stream.cancel()
        await until(lambda: in_flight(mesh) == 0)
