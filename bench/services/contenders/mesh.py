"""Meshgate itself: the processes and configurations that are shipped, as `meshgate up` starts them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from bench import gateway, process
from bench.services.clients import callers
from bench.services.clients.callers import Door
from bench.services.contenders.place import Place
from bench.services.loop import Call
from meshgate.rpc import channel
from meshgate.services import SERVICES

_CONFIGS: Final = Path(__file__).resolve().parents[3] / "deploy" / "config"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_START_SECONDS: Final = 300.0
_CALL_SECONDS: Final = 5.0


def start_service(place: Place, service: str, name: str, changes: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Starts a service; `changes` to its configuration are as `changed` takes them. Returns its port and pid."""
    config = place.home / f"{name}.toml"
    config.write_text(changed((_CONFIGS / f"{service}.toml").read_text(), changes or {}))
    port = process.free_port()
    command = process.python(f"services.{service}", "--config", str(config), "--listen", f"127.0.0.1:{port}")
    return port, place.run(name, command, place.shared(MESHGATE_HOME=str(place.home)))


def changed(config: str, changes: Mapping[str, str]) -> str:
    """A configuration with other values, by section and key (`engine.max_batch`). Raises ValueError for a section that
    it lacks.
    """
    for name, value in changes.items():
        section, _, key = name.partition(".")
        before, heading, rest = config.partition(f"[{section}]\n")
        if not heading:
            raise ValueError(f"there is no [{section}]")
        inside, following, after = rest.partition("\n[")
        kept = [line for line in inside.splitlines() if not line.startswith(f"{key} = ")]
        config = before + heading + "\n".join([f"{key} = {value}", *kept]) + following + after
    return config


async def serving(place: Place, service: str, port: int, pid: int) -> float:
    """Waits until a service says SERVING: how many seconds that took. Raises callers.NotReady."""
    opened = channel.open_channel(f"127.0.0.1:{port}", _as_gateway(place.home), part=service)
    check = opened.unary_unary(
        _HEALTH,
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )

    async def says_so() -> None:
        reply = await check(health_pb2.HealthCheckRequest(service=SERVICES[service].full_name), timeout=_CALL_SECONDS)
        if reply.status != health_pb2.HealthCheckResponse.SERVING:
            raise OSError("not serving")

    try:
        return await callers.ready(says_so, lambda: process.alive(pid), _START_SECONDS)
    finally:
        await opened.close()


def start_gateway(place: Place, name: str, services: Mapping[str, int]) -> tuple[Door, int]:
    """A gateway before services at these ports. Returns where it is, and its pid."""
    port = process.free_port()
    nowhere = dict.fromkeys(SERVICES, process.free_port())
    config = gateway.configure(place.home, name, one_backend=False)
    command = gateway.command(config, port, {**nowhere, **services})
    return Door(place.home, port), place.run(name, command)


async def answering(call: Call, pid: int) -> None:
    """Waits until calls through the gateway are answered."""

    async def once() -> None:
        await call(0, "ready?")

    await callers.ready(once, lambda: process.alive(pid), _START_SECONDS)


def _as_gateway(home: Path) -> grpc.ChannelCredentials:
    folder = home / "certs"
    files = ("ca.pem", "gateway-key.pem", "gateway.pem")
    return grpc.ssl_channel_credentials(*((folder / name).read_bytes() for name in files))
