"""What needs no token: nobody can fill the memory, the places or the log with it."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2

from meshgate import errors
from meshgate.rpc import status, tls
from meshgate.rpc.channel import open_channel
from meshgate.rpc.health import PATHS
from meshgate.rpc.private import stream_status
from meshgate.v1 import generation_pb2
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import SECONDS, attacked, metric, served, until
from tests.support.network.http2_peer import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    call,
    connected,
    frame,
)
from tests.support.network.mesh import refused

CHECK, LIST, WATCH = PATHS
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LARGE: Final = struct.pack(">BI", 0, 8 << 20)
"""How a message of 8 MiB begins."""
contract: Any = health_pb2  # its stubs lack List


@pytest.mark.parametrize("path", [CHECK, LIST, WATCH, REFLECTION])
async def test_few_large_requests_are_received_at_a_time(tmp_path: Path, path: str) -> None:
    """Twenty calls begin a large message. Windows are opened for those alone whose turn it is."""
    async with attacked(tmp_path, reflection=True, first_message_seconds=1) as mesh, connected(mesh) as peer:
        await peer.begin()
        streams = range(1, 41, 2)
        headers = block(call(path))
        await peer.send(frame(SETTINGS, ACK, 0))
        for stream in streams:
            await peer.send(frame(HEADERS, END_HEADERS, stream, headers), frame(DATA, 0, stream, LARGE))
        opened: set[int] = set()
        async with asyncio.timeout(SECONDS):
            async for kind, flags, stream, payload in peer.frames():
                large = kind == WINDOW_UPDATE and struct.unpack(">I", payload)[0] > 1 << 20
                opened |= {stream} if large and stream else set()
                if stream and (flags & END_STREAM or kind == RST_STREAM):
                    break  # the first ones have had their time
        assert len(opened) <= (8 if path == REFLECTION else 2)
        await served(mesh)


async def asked() -> AsyncIterator[bytes]:
    """One request of a caller who stays."""
    yield b""
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", [WATCH, REFLECTION])
async def test_calls_that_last_leave_room_for_other_addresses(tmp_path: Path, path: str) -> None:
    async with attacked(tmp_path, reflection=True, max_watchers=10, max_watchers_per_address=3) as mesh:
        async with mesh.channel() as opened:
            calls = [
                stream_status.preserve_status(opened.stream_stream(path)(asked(), timeout=SECONDS)) for _ in range(5)
            ]
            replies = [asyncio.ensure_future(each.read()) for each in calls]
            await until(lambda: metric(mesh, "meshgate_gateway_turned_away_calls_total")["watchers",] == 2)
            await until(lambda: sum(reply.done() for reply in replies) == 5)
            ended = [reply for reply in replies if reply.exception()]
            assert len(ended) == 2
            for reply in ended:
                error: Any = reply.exception()
                assert isinstance(status.from_rpc_error(error), errors.LimitExceeded)
            await served(mesh)
            for each in calls:
                each.cancel()
        await until(lambda: metric(mesh, "meshgate_gateway_inside_calls")["watchers",] == 0)


async def test_replies_that_nobody_reads_are_bounded(tmp_path: Path) -> None:
    """A window of nothing keeps each reply with gRPC."""
    async with attacked(tmp_path, max_watchers_per_address=5) as mesh, connected(mesh) as peer:
        await peer.begin()
        await peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), frame(SETTINGS, ACK, 0))
        for stream in range(1, 41, 2):
            await peer.send(
                frame(HEADERS, END_HEADERS, stream, block(call(LIST))), frame(DATA, END_STREAM, stream, bytes(5))
            )
        await until(lambda: metric(mesh, "meshgate_gateway_turned_away_calls_total")["watchers",] == 15)
        assert metric(mesh, "meshgate_gateway_inside_calls")["watchers",] == 5
        await served(mesh)
        await peer.close()
        await until(lambda: metric(mesh, "meshgate_gateway_inside_calls")["watchers",] == 0)


async def test_reflection_tells_the_contract_where_it_is_on(tmp_path: Path) -> None:
    from grpc_reflection.v1alpha import reflection_pb2

    async with attacked(tmp_path, reflection=True) as mesh, mesh.channel() as opened:
        asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        stream = opened.stream_stream(REFLECTION)(iter([asked, asked]), timeout=SECONDS)
        replies = [reflection_pb2.ServerReflectionResponse.FromString(reply) async for reply in stream]
        names = {service.name for service in replies[1].list_services_response.service}
        assert "meshgate.v1.GenerationService" in names
        assert len(replies) == 2


STRANGE: Final = [b"\xff", b"\x0a\xff", b"x" * 2000, b"\x12\x02\xff\xff", b""]


@pytest.mark.parametrize("path", [CHECK, LIST, WATCH, REFLECTION, "/grpc.health.v1.Health/Kill", "/x/y"])
async def test_nothing_that_strangers_send_is_logged(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked(tmp_path, reflection=True) as mesh, mesh.channel() as opened:
        caplog.set_level(logging.INFO)
        caplog.clear()
        for message in STRANGE:
            stream = opened.stream_stream(path)(iter([message]), timeout=SECONDS)
            try:
                async for _ in stream:
                    stream.cancel()
            except (grpc.aio.AioRpcError, asyncio.CancelledError):
                continue
        for _ in range(5):  # those who leave at once
            opened.stream_stream(path)().cancel()
        await served(mesh)
        assert [record for record in caplog.records if record.name != "gateway.audit.chain.ledger"] == []


async def test_list_tells_every_service(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, mesh.channel() as opened:
        reply = contract.HealthListResponse.FromString(await opened.unary_unary(LIST)(b"", timeout=SECONDS))
        assert reply.statuses[""].status == health_pb2.HealthCheckResponse.SERVING
        assert reply.statuses["meshgate.v1.GenerationService"].status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("path", [LIST, "/grpc.health.v1.Health/Kill", "/meshgate.v1.GenerationService/X", "/x/y"])
async def test_a_service_logs_nothing_of_methods_that_it_lacks(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    meshes.prepare(tmp_path)
    async with meshes.serving(tmp_path, "generation", ScriptedApplication()) as server:
        credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
        async with open_channel(f"127.0.0.1:{server.port}", credentials, part="generation") as opened:
            caplog.set_level(logging.INFO)
            caplog.clear()
            method: Any = opened.unary_unary(path)
            if path == LIST:
                assert contract.HealthListResponse.FromString(await method(b"", timeout=SECONDS)).statuses
            else:
                assert isinstance(await refused(method(b"", timeout=SECONDS)), errors.Unimplemented)
            assert caplog.records == []


class Unfinished(ScriptedApplication):
    """Its servicer lacks methods that the contract has."""

    def register(self, server: grpc.aio.Server) -> list[str]:
        from meshgate.v1 import generation_pb2_grpc

        generated: Any = generation_pb2_grpc.GenerationServiceServicer
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(generated(), server)
        return ["meshgate.v1.GenerationService"]


@pytest.mark.parametrize("method", ["Generate", "GenerateStream", "CountTokens"])
async def test_a_method_of_the_contract_that_nobody_wrote_is_unimplemented(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    meshes.prepare(tmp_path)
    async with meshes.serving(tmp_path, "generation", Unfinished()) as server:
        credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
        async with open_channel(f"127.0.0.1:{server.port}", credentials, part="generation") as opened:
            caplog.set_level(logging.INFO)
            caplog.clear()
            request = generation_pb2.GenerateRequest(prompt="x").SerializeToString()
            made: Any = opened.stream_stream(f"/meshgate.v1.GenerationService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stream_status.preserve_status(made(iter([request]), timeout=SECONDS)):
                    pass
            error = status.from_rpc_error(caught.value)
            assert (type(error), error.reason) == (errors.Unimplemented, "METHOD_UNKNOWN")
            assert caplog.records == []
