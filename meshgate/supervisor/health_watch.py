"""Whether a process serves, as it says itself through grpc.health.v1 over mutual TLS.

A peer that hangs is noticed by the channel's keepalive, which ends the watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate.rpc import channel
from meshgate.supervisor import valkey
from meshgate.supervisor.board import State

_AGAIN_SECONDS: Final = 0.3


def credentials(home: Path) -> grpc.ChannelCredentials:
    """The gateway's own: every service admits it, and the gateway asks for none. Raises OSError."""
    folder = home / "certs"
    files = (folder / name for name in ("ca.pem", "gateway-key.pem", "gateway.pem"))
    return grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))


async def states(part: str, target: str, service: str, home: Path) -> AsyncIterator[State]:
    """What a service of `part` at `target` does, whenever it changes: STARTING (no answer), LOADING or SERVING.

    Never ends. Whoever answers there with another part's certificate is no answer. Each attempt
    has a channel of its own, so that renewed certificates are taken up.
    """
    last: State | None = None
    while True:
        async for state in _watch(part, target, service, home):
            if state is not last:
                last = state
                yield state
        await asyncio.sleep(_AGAIN_SECONDS)


async def store_states(path: Path) -> AsyncIterator[State]:
    """The same of the store behind a Unix socket, which loads nothing."""
    last: State | None = None
    while True:
        state = State.SERVING if await valkey.answers(path) else State.STARTING
        if state is not last:
            last = state
            yield state
        await asyncio.sleep(_AGAIN_SECONDS)


async def _watch(part: str, target: str, service: str, home: Path) -> AsyncIterator[State]:
    async with channel.open_channel(target, credentials(home), part=part) as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        try:
            async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
                yield State.SERVING if reply.status == health_pb2.HealthCheckResponse.SERVING else State.LOADING
        except grpc.aio.AioRpcError:
            yield State.STARTING
