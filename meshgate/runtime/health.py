"""grpc.health.v1, with watchers that are let go when the server drains.

The servicer of grpcio-health-checking keeps its watchers, and so every drain would last as long as it may.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_WATCHERS: Final = 1000
"""Health is asked without a token, so who watches it is bounded. Balancers and clients that check it are far fewer."""
_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):
    """The health of a server, called "", and of each service that it has. For one event loop."""

    def __init__(self, watchers: int = _WATCHERS) -> None:
        """`watchers` is the most at once; one more is told RESOURCE_EXHAUSTED."""
        self._room = watchers
        self._states: dict[str, int] = {}
        self._closing = False
        self._changed = asyncio.Event()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """The present state; NOT_FOUND for a service that there is not."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=state)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Each state in turn, NOT_SERVING last, when the server drains. It writes to the context by itself."""
        if self._room <= 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch")
        self._room -= 1
        try:
            await self._tell(request, context)
        finally:
            self._room += 1

    async def _tell(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        said: int | None = None
        while True:
            changed = self._changed  # before the state is read, so that no change is missed
            state = self._states.get(request.service, _UNKNOWN)
            if state != said:
                said = state
                await context.write(health_pb2.HealthCheckResponse(status=state))
            elif self._closing:
                return
            else:
                await changed.wait()

    async def set(self, service: str, state: int) -> None:
        """Announces a state; ignored once the server drains."""
        if not self._closing:
            self._states[service] = state
            self._announce()

    async def enter_graceful_shutdown(self) -> None:
        """Everything is NOT_SERVING from here on, and watchers are let go."""
        self._closing = True
        self._states = dict.fromkeys(self._states, NOT_SERVING)
        self._announce()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
