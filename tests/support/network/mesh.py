"""A whole mesh in one process, over real mutual TLS: certificates, services, a gateway, tokens, audit records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import certs
from gateway.app import Gateway
from gateway.commands import dev_issuer
from gateway.config import GatewayConfig
from meshgate import errors
from meshgate.rpc import status, tls
from meshgate.rpc.channel import DIRECT
from meshgate.rpc.server import Application, Server, ServerConfig
from meshgate.services import SERVICES
from meshgate.v1 import models_pb2, models_pb2_grpc

GATEWAY_ID = "spiffe://meshgate.local/gateway"
_READY_SECONDS = 30.0


def identity(home: Path, name: str, *, ask_client: bool = True) -> tls.TlsConfig:
    """The development certificate of `name`."""
    folder = home / "certs"
    return tls.TlsConfig(
        certificate=folder / f"{name}.pem",
        key=folder / f"{name}-key.pem",
        ca=folder / "ca.pem",
        require_client_certificate=ask_client,
    )


def prepare(home: Path) -> None:
    """Certificates and the development issuer's key."""
    certs.ensure(home, (*certs.NAMES, "stranger"))
    dev_issuer.ensure_key(home)


def gateway_config(home: Path, targets: Mapping[str, int], **changes: Any) -> GatewayConfig:
    """A gateway before services at these ports, with `changes` to its sections."""
    sections: dict[str, Any] = {
        "server": {
            "listen": "127.0.0.1:0",
            "tls": identity(home, "gateway", ask_client=False).model_dump(),
            "drain_seconds": 5,
        },
        "mesh": identity(home, "gateway").model_dump(),
        "backends": {name: {"target": f"127.0.0.1:{port}"} for name, port in targets.items()},
        "issuers": [
            {"issuer": dev_issuer.ISSUER, "audience": dev_issuer.AUDIENCE, "jwks": home / "keys" / "jwks.json"}
        ],
        "policy": {"tenants": {"*": {"models": ["*"]}}},
        "limits": {},
        "audit": {"directory": home / "audit", "keys": home / "keys"},
        "sealing": {"keys": home / "keys" / "sealing"},
    }
    return GatewayConfig.model_validate({**sections, **changes})


@dataclass
class Mesh:
    """A running mesh."""

    home: Path
    gateway: Gateway
    services: Mapping[str, Server]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.gateway.port}"

    @property
    def ca(self) -> bytes:
        return (self.home / "certs" / "ca.pem").read_bytes()

    def token(self, *, tenant: str = "acme", subject: str = "alice", scopes: Sequence[str] = dev_issuer.SCOPES) -> str:
        return dev_issuer.mint(self.home, tenant=tenant, subject=subject, scopes=scopes, ttl=600)

    def channel(self) -> Any:
        """A channel that carries no token."""
        credentials = grpc.ssl_channel_credentials(self.ca)
        return grpc.aio.secure_channel(self.target, credentials, options=(("grpc.enable_retries", 0), *DIRECT))

    def auth(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        """Metadata with a token."""
        return (("authorization", f"Bearer {token or self.token()}"),)

    def records(self) -> list[dict[str, Any]]:
        """What the audit log holds, oldest first: the calls' records alone."""
        lines = [
            json.loads(line)
            for path in sorted((self.home / "audit").glob("*.jsonl"))
            for line in path.read_text().splitlines()
        ]
        found = [line.get("record", line) for line in lines]
        return [record for record in found if "request_id" in record]

    def record_of(self, error: errors.MeshError) -> dict[str, Any]:
        """The last record of a failed call."""
        return [record for record in self.records() if record["request_id"] == error.request_id][-1]


@asynccontextmanager
async def serving(home: Path, name: str, application: Application, **changes: Any) -> AsyncIterator[Server]:
    """One service, for the gateway alone."""
    config = ServerConfig(
        **{
            "listen": "127.0.0.1:0",
            "tls": identity(home, name),
            "peers": {"/meshgate.v1.*": [GATEWAY_ID], "/grpc.health.v1.*": [GATEWAY_ID]},
            "drain_seconds": 1,
            "sealing": {"keys": home / "keys" / f"sealing-{name}"},
            **changes,
        }
    )
    server = Server(config, application)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def mesh(home: Path, applications: Mapping[str, Application], **changes: Any) -> AsyncIterator[Mesh]:
    """A gateway before these services, ready for calls."""
    prepare(home)
    async with AsyncExitStack() as stack:
        services = {
            name: await stack.enter_async_context(serving(home, name, app)) for name, app in applications.items()
        }
        ports = {name: server.port for name, server in services.items()}
        gateway = Gateway(gateway_config(home, ports, **changes))
        await gateway.start()
        try:
            made = Mesh(home, gateway, services)
            await ready(made)
            yield made
        finally:
            await gateway.stop()


async def ready(made: Mesh) -> None:
    """Returns once the gateway knows every service's health, as its callers would ask."""
    async with made.channel() as channel:
        for name in made.services:
            await known(channel, name)


async def known(channel: Any, name: str) -> None:
    """Returns once the gateway behind `channel` says that this service serves."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=SERVICES[name].full_name)
    async with asyncio.timeout(_READY_SECONDS):
        watch = stub.Watch(request, wait_for_ready=True)
        async for reply in watch:
            if reply.status == health_pb2.HealthCheckResponse.SERVING:
                break
        watch.cancel()


async def refused(call: Any) -> errors.MeshError:
    """The error that a call ends with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error)
    raise AssertionError("the call was not refused")


async def models(made: Mesh, token: str) -> list[str]:
    """The names of the models that a token shows."""
    async with made.channel() as channel:
        stub: Any = models_pb2_grpc.ModelServiceStub(channel)
        reply = await stub.ListModels(models_pb2.ListModelsRequest(), metadata=made.auth(token))
    return [model.name for model in reply.models]
