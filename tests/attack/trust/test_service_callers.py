"""A service answers its gateway alone: not a stranger with a certificate, not one without, not TLS 1.2."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.rpc import status, tls
from meshgate.rpc.channel import open_channel
from meshgate.rpc.server import Server
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import refused


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Server]:
    meshes.prepare(tmp_path)
    async with meshes.serving(tmp_path, "generation", ScriptedApplication()) as server:
        yield server


async def ask(server: Server, credentials: grpc.ChannelCredentials) -> errors.MeshError:
    channel: Any = open_channel(f"127.0.0.1:{server.port}", credentials, part="generation")
    async with channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        return await refused(stub.Generate(generation_pb2.GenerateRequest(prompt="x"), timeout=10))


async def test_no_certificate(service: Server, tmp_path: Path) -> None:
    error = await ask(service, grpc.ssl_channel_credentials((tmp_path / "certs" / "ca.pem").read_bytes()))
    assert isinstance(error, errors.Unavailable)  # the handshake fails: there is no call to answer


@pytest.mark.parametrize("name", ["stranger", "embedding", "generation"])
async def test_a_certificate_of_the_wrong_identity(service: Server, tmp_path: Path, name: str) -> None:
    error = await ask(service, tls.channel_credentials(meshes.identity(tmp_path, name)))
    assert (type(error), error.reason) == (errors.PermissionDenied, "PEER_NOT_ALLOWED")
    assert error.request_id


async def test_a_certificate_of_another_ca(service: Server, tmp_path: Path) -> None:
    other = tmp_path / "other"
    meshes.prepare(other)
    theirs = meshes.identity(other, "gateway")
    key, chain = theirs.key.read_bytes(), theirs.certificate.read_bytes()
    ca = (tmp_path / "certs" / "ca.pem").read_bytes()
    error = await ask(service, grpc.ssl_channel_credentials(ca, key, chain))
    assert isinstance(error, errors.Unavailable)


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
async def test_what_is_no_message_is_refused(service: Server, tmp_path: Path, method: str) -> None:
    credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
    channel: Any = open_channel(f"127.0.0.1:{service.port}", credentials, part="generation")
    async with channel:
        call = channel.stream_stream(f"/meshgate.v1.GenerationService/{method}")
        for requests in ([b"\xff\xff"], []):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in call(iter(requests), timeout=10):
                    pass
            error = status.from_rpc_error(caught.value)
            assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")
        good = generation_pb2.GenerateRequest(prompt="x")
        assert await generation_pb2_grpc.GenerationServiceStub(channel).Generate(good, timeout=10)


def handshake(port: int, home: Path, version: ssl.TLSVersion) -> str | None:
    context = ssl.create_default_context(cafile=str(home / "certs" / "ca.pem"))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(home / "certs" / "gateway.pem", home / "certs" / "gateway-key.pem")
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="generation.meshgate") as wrapped:
        return wrapped.version()


async def test_tls_13_and_nothing_older(service: Server, tmp_path: Path) -> None:
    assert await asyncio.to_thread(handshake, service.port, tmp_path, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises(ssl.SSLError):
        await asyncio.to_thread(handshake, service.port, tmp_path, ssl.TLSVersion.TLSv1_2)


async def test_a_renewed_certificate_is_taken_up(service: Server, tmp_path: Path) -> None:
    import certs

    before = await asyncio.to_thread(serial, service.port, tmp_path)
    certs.ensure(tmp_path, renew=True)
    assert await asyncio.to_thread(serial, service.port, tmp_path) != before


def serial(port: int, home: Path) -> str:
    context = ssl.create_default_context(cafile=str(home / "certs" / "ca.pem"))
    context.load_cert_chain(home / "certs" / "gateway.pem", home / "certs" / "gateway-key.pem")
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with plain, context.wrap_socket(plain, server_hostname="generation.meshgate") as wrapped:
        found: Any = wrapped.getpeercert()
        return str(found["serialNumber"])
