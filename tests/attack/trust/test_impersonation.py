"""Each part of the mesh, and whoever else has a certificate of its CA, tries to stand in for each other part."""

from __future__ import annotations

import asyncio
import itertools
import logging
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml  # type: ignore[import-untyped]
from cryptography import x509

import certs
from certs import authority
from gateway.app import Gateway
from gateway.forwarding.backend import Backend, BackendConfig
from meshgate.errors import MeshError, PermissionDenied
from meshgate.rpc import status, tls
from meshgate.rpc.channel import open_channel
from meshgate.rpc.server import Server
from meshgate.services import SERVICES
from meshgate.state import default_configs
from meshgate.supervisor import health_watch
from meshgate.supervisor.board import State
from meshgate.v1 import models_pb2, models_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes

CLIENTS = ("stranger", "Generation", "generation.meshgate", "localhost", "client-1")
PARTS = (*certs.NAMES, *CLIENTS)
EVERYBODY = [f"spiffe://meshgate.local/{name}" for name in PARTS]
ASK = models_pb2.ListModelsRequest()
FORMS = ("127.0.0.1:{}", "ipv4:127.0.0.1:{0},127.0.0.1:{0}", "localhost:{}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    meshes.prepare(made)
    certs.ensure(made, PARTS)
    return made


@asynccontextmanager
async def serving_as(home: Path, holder: str, **changes: Any) -> AsyncIterator[Server]:
    """A service with the certificate of `holder`, which admits everybody."""
    peers = {"/*": EVERYBODY}
    async with meshes.serving(
        home, holder, ScriptedApplication(), **{"peers": peers, "sealing": None, **changes}
    ) as made:
        yield made


async def why(call: Any) -> MeshError | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error)
    return None


@pytest.mark.parametrize("holder", PARTS)
async def test_the_gateway_reaches_nobody_but_the_service_itself(home: Path, holder: str) -> None:
    mesh = meshes.identity(home, "gateway")
    async with serving_as(home, holder) as server:
        for form, role in itertools.product(FORMS, SERVICES):
            config = BackendConfig.model_validate({"target": form.format(server.port), "health_checks": False})
            backend = Backend(role, config, mesh)
            try:
                error = await why(backend.stub(models_pb2_grpc.ModelServiceStub).ListModels(ASK, timeout=10))
            finally:
                await backend.close()
            assert (error is None) == (holder == role), (role, form)


def names_in_kubernetes(name: str, *, local: bool) -> x509.SubjectAlternativeName:
    """Those that cert-manager is asked for."""
    found = yaml.safe_load_all((default_configs().parent / "kubernetes" / "certificates.yaml").read_text())
    leaf = next(each["spec"] for each in found if each["kind"] == "Certificate" and each["metadata"]["name"] == name)
    uris = [x509.UniformResourceIdentifier(uri) for uri in leaf["uris"]]
    return x509.SubjectAlternativeName([*uris, *map(x509.DNSName, leaf["dnsNames"])])


@pytest.mark.parametrize("holder", certs.NAMES)
async def test_so_it_is_with_the_certificates_of_kubernetes(
    tmp_path: Path, holder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "_alternative_names", names_in_kubernetes)
    certs.ensure(tmp_path)
    await test_the_gateway_reaches_nobody_but_the_service_itself(tmp_path, holder)


@pytest.mark.parametrize("holder", PARTS)
@pytest.mark.parametrize("target", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_caller_reaches_nobody_but_the_gateway(home: Path, holder: str, target: str) -> None:
    believed = grpc.ssl_channel_credentials((home / "certs" / "ca.pem").read_bytes())
    identity = meshes.identity(home, holder, ask_client=False)
    listen = "[::1]:0" if target == "[::1]" else "127.0.0.1:0"
    async with (
        serving_as(home, holder, tls=identity, listen=listen) as server,
        grpc.aio.secure_channel(f"{target}:{server.port}", believed) as channel,
    ):
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)
        error = await why(stub.ListModels(ASK, timeout=10))
    reached = isinstance(error, PermissionDenied)  # it has no certificate that a service would admit
    assert reached == (holder == "gateway")


@pytest.mark.parametrize("service", SERVICES)
async def test_no_service_admits_anybody_but_the_gateway(home: Path, service: str) -> None:
    """With the peers of the configuration that is shipped: itself is let ask for its health, and no more."""
    peers = tomllib.loads((default_configs() / f"{service}.toml").read_text())["server"]["peers"]
    methods = [f"/meshgate.v1.{name}" for name in ("GenerationService/Generate", "EmbeddingService/Embed")]
    async with serving_as(home, service, peers=peers) as server:
        for holder in PARTS:
            credentials = tls.channel_credentials(meshes.identity(home, holder))
            channel: Any
            async with open_channel(f"127.0.0.1:{server.port}", credentials, part=service) as channel:
                error = await why(models_pb2_grpc.ModelServiceStub(channel).ListModels(ASK, timeout=10))
                assert (error is None) == (holder == "gateway"), holder
                for method in methods if holder != "gateway" else ():
                    refused = await why(channel.unary_unary(method)(b"", timeout=10))
                    assert refused is not None and refused.reason == "PEER_NOT_ALLOWED", (holder, method)
                health = await why(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10))
                assert (health is None) == (holder in ("gateway", service)), holder


@pytest.mark.parametrize("holder", ["embedding", "stranger", "gateway"])
async def test_a_part_that_stands_in_is_not_served_and_is_said(
    tmp_path: Path, holder: str, caplog: pytest.LogCaptureFixture
) -> None:
    meshes.prepare(tmp_path)
    said = asyncio.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another certificate" in record.getMessage():
                said.set()

    logger = logging.getLogger("gateway.forwarding.model_catalogue")
    handler = Heard()
    logger.addHandler(handler)
    async with serving_as(tmp_path, holder) as server:
        gateway = Gateway(meshes.gateway_config(tmp_path, {"generation": server.port}))
        await gateway.start()
        try:
            async with asyncio.timeout(20):
                await said.wait()
        finally:
            logger.removeHandler(handler)
            await gateway.stop()
    record = next(record for record in caplog.records if "another certificate" in record.getMessage())
    assert (record.__dict__["backend"], record.__dict__["expected"]) == ("generation", "generation.meshgate")


@pytest.mark.parametrize(("part", "holder"), [*itertools.product(certs.NAMES, certs.NAMES)])
async def test_the_supervisor_believes_nobody_but_the_part_itself(home: Path, part: str, holder: str) -> None:
    async with serving_as(home, holder) as server:
        async for state in health_watch.states(part, f"127.0.0.1:{server.port}", "", home):
            assert (state is State.SERVING) == (part == holder)
            break
