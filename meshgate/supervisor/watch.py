"""Whether a process serves, as it says itself through grpc.health.v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate.runtime import channel

_AGAIN_SECONDS: Final = 0.3
SERVING: Final = "serving"
LOADING: Final = "loading"
SILENT: Final = "silent"


def credentials(home: Path) -> grpc.ChannelCredentials:
    """The gateway's own: every service admits it, and the gateway asks for none. Raises OSError."""
    folder = home / "certs"
    files = (folder / name for name in ("ca.pem", "gateway-key.pem", "gateway.pem"))
    return grpc.ssl_channel_credentials(*(path.read_bytes() for path in files))


async def states(target: str, service: str, identity: grpc.ChannelCredentials) -> AsyncIterator[str]:
    """Yields SILENT, LOADING or SERVING whenever it changes; never ends."""
    async with channel.open_channel(target, identity) as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        last = ""
        while True:
            try:
                async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=service)):
                    state = SERVING if reply.status == health_pb2.HealthCheckResponse.SERVING else LOADING
                    if state != last:
                        last = state
                        yield state
            except grpc.aio.AioRpcError:
                if last != SILENT:
                    last = SILENT
                    yield SILENT
            await asyncio.sleep(_AGAIN_SECONDS)
