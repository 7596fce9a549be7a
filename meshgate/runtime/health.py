"""grpc.health.v1, with watchers that are let go when the server drains: they would otherwise hold it up to the end."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from grpc_health.v1 import health, health_pb2

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

_Servicer: Any = health.aio.HealthServicer  # type: ignore[attr-defined]  # the stub lacks aio


class Health(_Servicer):  # type: ignore[misc]  # see above
    """The health of a server and of each service it has. Begins as serving nothing but the server itself."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Says each change, and NOT_SERVING last, when the server drains."""
        watching = asyncio.create_task(super().Watch(request, context))
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({watching, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, closing):
                task.cancel()
            await asyncio.gather(watching, closing, return_exceptions=True)
        if self._closing.is_set():
            await context.write(health_pb2.HealthCheckResponse(status=NOT_SERVING))

    async def enter_graceful_shutdown(self) -> None:
        """Everything is NOT_SERVING from here on, and watchers are let go."""
        await super().enter_graceful_shutdown()
        self._closing.set()
