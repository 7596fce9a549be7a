"""Whatever proxy the environment names, what belongs to the mesh and what is on this machine is reached without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from gateway.audit.config import OtlpSinkConfig
from gateway.audit.sinks.otlp_sink import OtlpSink
from gateway.audit.sinks.sink import SinkFailed
from gateway.authentication.keys import https_get
from meshgate.cli.main import app
from meshgate.client import aio, blocking
from meshgate.supervisor import health_watch
from meshgate.supervisor.board import State
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.integration.deploy.test_probe import CONFIG, ITSELF, probed
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.jwks_server import jwks_server, ok
from tests.support.network.mesh import Mesh

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
ADDRESS = "GRPC_ADDRESS_HTTP_PROXY"
"""gRPC's other way to a proxy, for the addresses that a second variable names."""


class Proxy:
    """Takes connections, counts them, and forwards none."""

    def __init__(self) -> None:
        self.asked = 0
        self.port = 0

    def take(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    made = Proxy()
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


@pytest.fixture(params=[*VARIABLES, *(name.upper() for name in VARIABLES), ADDRESS])
def named(request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """A variable that names the proxy."""
    scheme = "" if request.param == ADDRESS else "http://"
    monkeypatch.setenv(request.param, f"{scheme}127.0.0.1:{proxy.port}")
    monkeypatch.setenv(f"{ADDRESS}_ENABLED_ADDRESSES", "0.0.0.0/0")
    return str(request.param)


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[Mesh]:
    application = ScriptedApplication()
    application.go_on.set()
    async with meshes.mesh(home, {"generation": application}) as mesh:
        yield mesh


def ask() -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(prompt="a b c")


async def called(mesh: Mesh, sealed: Any, **changes: Any) -> str:
    """An answer to the blocking SDK and one to that of asyncio; where sealed, the key was fetched first."""
    given = {"target": mesh.target, "ca": mesh.ca, "token": mesh.token(), "sealed": sealed, **changes}
    async with aio.connect(**given) as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        first = await stub.Generate(ask(), timeout=20)

    def block() -> Any:
        with blocking.connect(**given) as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            return stub.Generate(ask(), timeout=20)

    assert (await asyncio.to_thread(block)).candidates == first.candidates
    return str(first.candidates[0].text)


@pytest.mark.parametrize("sealed", [False, "gateway", "service"])
async def test_the_sdk_reaches_this_machine(tmp_path: Path, named: str, proxy: Proxy, sealed: Any) -> None:
    async with running(tmp_path) as mesh:  # which needs the gateway's own channel to its backend
        assert await called(mesh, sealed)
    assert proxy.asked == 0


async def test_the_cli_reaches_this_machine(
    tmp_path: Path, named: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    async with running(tmp_path) as mesh:
        for flags in ((), ("--sealed",)):
            arguments = ("--target", mesh.target, "generate", "a b", "--json", *flags)
            made = await asyncio.to_thread(CliRunner().invoke, app, arguments)
            assert json.loads(made.stdout)["candidates"], made.output
    assert proxy.asked == 0


async def test_the_supervisor_and_the_probe_reach_this_machine(tmp_path: Path, named: str, proxy: Proxy) -> None:
    meshes.prepare(tmp_path)
    peers = {"/grpc.health.v1.Health/*": [ITSELF, meshes.GATEWAY_ID]}
    async with meshes.serving(tmp_path, "embedding", ScriptedApplication(), peers=peers) as server:
        (tmp_path / "c.toml").write_text(CONFIG.format(port=server.port, certs=tmp_path / "certs"))
        assert await probed(tmp_path / "c.toml") == (0, "SERVING")
        async with asyncio.timeout(20):
            async for state in health_watch.states("embedding", f"127.0.0.1:{server.port}", "", tmp_path):
                if state is State.SERVING:
                    break
    assert proxy.asked == 0


async def test_keys_are_fetched_without_a_proxy(tmp_path: Path, named: str, proxy: Proxy) -> None:
    async with jwks_server(tmp_path) as keys:
        keys.answer = ok([])
        assert await https_get.get(keys.url, https_get.trust(keys.ca), seconds=20, max_bytes=100_000)
    assert proxy.asked == 0


@pytest.mark.parametrize(("asked", "target"), [(False, "127.0.0.1:{}"), (True, "ipv4:127.0.0.1:{}")])
async def test_a_collector_has_a_proxy_where_its_sink_says_so(
    proxy: Proxy, asked: bool, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{proxy.port}")
    config = OtlpSinkConfig.model_validate(
        {"kind": "otlp", "target": target.format(1), "insecure": True, "proxy": asked}
    )
    sink = OtlpSink(config, "x", 2.0)
    sink.open()
    with pytest.raises(SinkFailed):  # nobody listens
        await asyncio.to_thread(sink.write, [b"{}"])
    assert bool(proxy.asked) is asked


async def test_a_proxy_is_asked_where_the_caller_wants_it(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as mesh:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        connects: tuple[Callable[..., Any], ...] = (blocking.connect, aio.connect)
        for connect in connects:
            asked = proxy.asked
            channel = connect(mesh.target, ca=mesh.ca, token=mesh.token(), proxy=True)
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                if connect is aio.connect:
                    await stub.Generate(ask(), timeout=2)
                else:
                    await asyncio.to_thread(stub.Generate, ask(), timeout=2)
            assert proxy.asked > asked
