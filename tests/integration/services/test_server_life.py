"""A service's life, over real mutual TLS: it says that it loads, serves, and drains when it is told to go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate import errors
from meshgate.rpc import tls
from meshgate.rpc.channel import EOF, open_channel
from meshgate.rpc.server import Server, ServerConfig
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import refused

SERVICE = "meshgate.v1.GenerationService"


class SlowToLoad(ScriptedApplication):
    """Loads when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.loading = asyncio.Event()
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        self.loading.set()
        await self.loaded.wait()


def server(home: Path, application: ScriptedApplication) -> Server:
    meshes.prepare(home)
    peers = {"/meshgate.v1.*": [meshes.GATEWAY_ID], "/grpc.health.v1.*": [meshes.GATEWAY_ID]}
    identity = meshes.identity(home, "generation")
    return Server(ServerConfig(listen="127.0.0.1:0", tls=identity, peers=peers, drain_seconds=60), application)


def channel(home: Path, made: Server) -> Any:
    credentials = tls.channel_credentials(meshes.identity(home, "gateway"))
    return open_channel(f"127.0.0.1:{made.port}", credentials, part="generation")


async def health(opened: Any) -> int:
    stub: Any = health_pb2_grpc.HealthStub(opened)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))).status)


async def test_it_listens_before_it_is_loaded_and_says_so(tmp_path: Path) -> None:
    application = SlowToLoad()
    made = server(tmp_path, application)
    starting = asyncio.create_task(made.start())
    await application.loading.wait()
    async with channel(tmp_path, made) as opened:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
        assert await health(opened) == health_pb2.HealthCheckResponse.NOT_SERVING
        error = await refused(stub.Generate(generation_pb2.GenerateRequest(prompt="x")))
        assert (type(error), error.reason) == (errors.Unavailable, "STARTING")
        application.loaded.set()
        await starting
        assert await health(opened) == health_pb2.HealthCheckResponse.SERVING
        assert (await stub.Generate(generation_pb2.GenerateRequest(prompt="x"))).candidates[0].text == "x"
    await made.stop()


async def test_it_finishes_what_it_has_in_hand(tmp_path: Path) -> None:
    application = ScriptedApplication()  # its stop lets streams go on
    made = server(tmp_path, application)
    await made.start()
    async with channel(tmp_path, made) as opened:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="a b c"))
        stream = stub.GenerateStream(request)
        words = [(await stream.read()).deltas[0].text]
        await made.stop()
        words += [(await stream.read()).deltas[0].text for _ in range(2)]
        assert words == ["a", "b", "c"]
        assert await stream.code() == grpc.StatusCode.OK
        error = await refused(stub.Generate(generation_pb2.GenerateRequest(prompt="x"), timeout=20))
        assert isinstance(error, errors.Unavailable)


async def test_what_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    class Stubborn(ScriptedApplication):
        async def stop(self, grace: float) -> None:
            return None

    application = Stubborn()
    meshes.prepare(tmp_path)
    async with (
        meshes.serving(tmp_path, "generation", application, drain_seconds=0.1) as made,
        channel(tmp_path, made) as opened,
    ):
        stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="a b c"))
        stream = stub.GenerateStream(request)
        await stream.read()
        await made.stop()
        async with asyncio.timeout(10):
            await application.abandoned.wait()


async def test_a_watcher_of_health_does_not_hold_the_drain_up(tmp_path: Path) -> None:
    made = server(tmp_path, ScriptedApplication())  # may drain for a minute
    await made.start()
    async with channel(tmp_path, made) as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(20):
            await made.stop()
        seen = [reply.status async for reply in _rest(watch)]
        assert set(seen) == {health_pb2.HealthCheckResponse.NOT_SERVING}
        assert await watch.code() == grpc.StatusCode.OK


async def _rest(stream: Any) -> AsyncIterator[Any]:
    while (reply := await stream.read()) is not EOF:
        yield reply
