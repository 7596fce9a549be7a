"""Calls that come faster than they are taken: each is refused by us with a reason, and nobody else's is cancelled."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

from meshgate.rpc.health import PATHS
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import GENERATE, attacked, metric, served, until
from tests.support.network.http2_peer import DATA, END_HEADERS, END_STREAM, HEADERS, Peer, block, call, connected, frame
from tests.support.network.mesh import Mesh

CONNECTIONS: Final = 5
EACH: Final = 900
"""Together more than gRPC by itself would keep: it cancels calls at random beyond 1,000, and all beyond 3,000."""


async def flood(mesh: Mesh, path: str) -> int:
    """So many calls without a token in one piece from each of some connections. Returns how many gRPC cancelled."""

    async def one() -> int:
        async with connected(mesh) as peer:
            return await burst(peer, path)

    return sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS))))


async def burst(peer: Peer, path: str) -> int:
    """The calls of one connection. Returns how many gRPC cancelled."""
    headers = block(call(path))
    streams = range(1, 2 * EACH, 2)
    await peer.begin()
    await peer.send(
        *(frame(HEADERS, END_HEADERS, each, headers) + frame(DATA, END_STREAM, each, bytes(5)) for each in streams)
    )
    return await cancelled(peer)


async def cancelled(peer: Peer) -> int:
    """How many calls gRPC ended by itself, with grpc-status 1, once all have ended."""
    ended: set[int] = set()
    found = 0
    async with asyncio.timeout(60):
        async for kind, flags, stream, payload in peer.frames():
            if kind == HEADERS and flags & END_STREAM:
                ended.add(stream)
                found += b"grpc-status\x011" in payload and b"grpc-status\x0216" not in payload
            if len(ended) == EACH:
                break
    return found


async def test_every_call_of_a_burst_is_refused_by_us(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh:
        bystanders = asyncio.ensure_future(all_served(mesh))
        await flood(mesh, GENERATE)
        await bystanders
        await until(lambda: sum(metric(mesh, "meshgate_gateway_refused_calls_total").values()) == CONNECTIONS * EACH)
        assert set(metric(mesh, "meshgate_gateway_refused_calls_total")) <= {("TOKEN_MISSING",), ("OVERLOADED",)}


async def all_served(mesh: Mesh) -> None:
    """Others call the same method meanwhile."""
    for _ in range(20):
        await served(mesh)


async def test_a_burst_for_health_is_answered(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh:
        assert await flood(mesh, PATHS[0]) == 0


async def test_a_burst_for_a_service_is_answered(tmp_path: Path) -> None:
    meshes.prepare(tmp_path)
    mine = meshes.identity(tmp_path, "gateway")
    context = ssl.create_default_context(cafile=str(mine.ca))
    context.load_cert_chain(mine.certificate, mine.key)
    context.set_alpn_protocols(["h2"])
    async with meshes.serving(tmp_path, "generation", ScriptedApplication()) as service:

        async def one() -> int:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", service.port, ssl=context, server_hostname="generation.meshgate"
            )
            try:
                return await burst(Peer(reader, writer), PATHS[0])
            finally:
                writer.transport.abort()

        assert sum(await asyncio.gather(*(one() for _ in range(CONNECTIONS)))) == 0
