"""grpc.health.v1, read by ourselves, with watchers that are let go when the server drains.

The servicer of grpcio-health-checking keeps its watchers, so every drain would last as long as it may. It also lets
gRPC read the request: whole, as large as any message may be, and kept for as long as a watcher watches. Here the
request is bytes until its size is known, and the service's name is all that is kept of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from meshgate import errors
from meshgate.rpc import channel
from meshgate.rpc.call import compression
from meshgate.rpc.call.connection_slots import ConnectionSlots
from meshgate.rpc.status import TOO_LARGE

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
MAX_REQUEST_BYTES: Final = 1024
"""A request holds the name of a service and nothing else."""
_contract: Final[Any] = health_pb2  # its stubs lack List
_SERVICE: Final = "/grpc.health.v1.Health/"
PATHS: Final = (f"{_SERVICE}Check", f"{_SERVICE}List", f"{_SERVICE}Watch")
"""The methods that `Health.service` answers, to be registered with shield.register."""
_WATCHERS: Final = 1000
"""Health is asked without a token, so its watchers are bounded. Balancers and clients that check it are far fewer."""
_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

Read = Callable[[Any], Awaitable[Any]]
"""Reads one message of the call with this context, as bytes; channel.EOF where the call ended before it."""


async def _read(context: Any) -> Any:
    return await context.read()


class Health(grpc.GenericRpcHandler):
    """The health of a server, called "", and of each service that it has. For one event loop.

    Its handlers raise MeshError; the code that registers them turns it into a status.
    """

    def __init__(
        self, watchers: ConnectionSlots | None = None, read: Read = _read, address: Callable[[str], str] = str
    ) -> None:
        """`watchers` are the places for watchers, each held under the `address` of gRPC's name of the peer."""
        self._places = ConnectionSlots(_WATCHERS) if watchers is None else watchers
        self._read = read
        self._address = address
        self._states: dict[str, int] = {}
        self._closing = False
        self._changed = asyncio.Event()

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, which reads its request by itself."""
        match str(handler_call_details.method).removeprefix(_SERVICE):
            case "Check":
                return grpc.stream_unary_rpc_method_handler(self._check)
            case "List":
                return grpc.stream_unary_rpc_method_handler(self._list)
            case "Watch":
                return grpc.stream_stream_rpc_method_handler(self._watch)
        return None

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

    async def _check(self, _: Any, context: Any) -> bytes:
        """The present state. Raises NotFound for a service that does not exist."""
        state = self._states.get(await self._asked(context))
        if state is None:
            raise errors.NotFound("no such service", reason="SERVICE_UNKNOWN")
        return health_pb2.HealthCheckResponse(status=state).SerializeToString()

    async def _list(self, _: Any, context: Any) -> bytes:
        """All services with their present states."""
        await self._asked(context)
        statuses = {name: health_pb2.HealthCheckResponse(status=state) for name, state in self._states.items()}
        reply: bytes = _contract.HealthListResponse(statuses=statuses).SerializeToString()
        return reply

    async def _watch(self, _: Any, context: Any) -> None:
        """Each state in turn, NOT_SERVING last, when the server drains."""
        service = await self._asked(context)
        with self._places.place(self._address(context.peer())):
            await self._tell(service, context)

    async def _asked(self, context: Any) -> str:
        """The service that a request names."""
        message = await self._read(context)
        if message is channel.EOF:
            raise errors.InvalidArgument("the call ended before its message", reason="MALFORMED")
        return _service(message)

    async def _tell(self, service: str, context: Any) -> None:
        said: int | None = None
        while True:
            changed = self._changed  # before the state is read, so that no change is missed
            state = self._states.get(service, _UNKNOWN)
            if state != said:
                said = state
                await context.write(health_pb2.HealthCheckResponse(status=state).SerializeToString())
            elif self._closing:
                return
            else:
                await changed.wait()

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def too_large() -> errors.InvalidArgument:
    """The error for a request that is larger than the name of a service can be."""
    return errors.InvalidArgument(f"the message is too large: at most {MAX_REQUEST_BYTES} bytes", reason=TOO_LARGE)


def _service(message: bytes) -> str:
    if len(message) > MAX_REQUEST_BYTES:
        raise too_large()
    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError:
        raise compression.unreadable(message) from None
