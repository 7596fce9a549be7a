"""What stands around every method of a service: who may call it, readiness, the time left, and errors made statuses.

The order is the order of `Guard.around`. Each arity of gRPC is one thin adapter; what is done is written once.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import grpc

from meshgate import errors
from meshgate.runtime import metadata, orca, status, tls

_log = logging.getLogger(__name__)

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

_HEALTH = "/grpc.health.v1.Health/"


class PeerPolicy:
    """Which SPIFFE IDs may call which methods. What no pattern names, nobody may call."""

    def __init__(self, allowed: Mapping[str, Sequence[str]]) -> None:
        """`allowed` maps a method pattern (`/meshgate.v1.EmbeddingService/*`) to SPIFFE IDs."""
        self._allowed = {pattern: frozenset(ids) for pattern, ids in allowed.items()}
        self._by_method: dict[str, frozenset[str]] = {}

    def check(self, method: str, peer: Sequence[str]) -> None:
        """Raises PermissionDenied (PEER_NOT_ALLOWED) unless one of the peer's IDs may call `method`."""
        if self._ids(method).isdisjoint(peer):
            raise errors.PermissionDenied("this peer may not call this method", reason="PEER_NOT_ALLOWED")

    def _ids(self, method: str) -> frozenset[str]:
        found = self._by_method.get(method)
        if found is None:
            matching = [ids for pattern, ids in self._allowed.items() if fnmatchcase(method, pattern)]
            found = self._by_method[method] = frozenset[str]().union(*matching)
        return found


class Guard(grpc.aio.ServerInterceptor):
    """The one interceptor of a service."""

    def __init__(self, peers: PeerPolicy, ready: Callable[[], bool]) -> None:
        self._peers = peers
        self._ready = ready
        self._load = orca.Load()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler. Only registered methods reach it, so the policy's cache is bounded."""
        handler = await continuation(handler_call_details)
        return handler and _wrap(handler, self, str(handler_call_details.method))

    @asynccontextmanager
    async def around(self, method: str, context: Context) -> AsyncIterator[None]:
        """Runs a call between the checks and the renaming of its errors."""
        request_id = request_id_of(context)
        try:
            self._peers.check(method, tls.spiffe_ids(context.auth_context()))
            if method.startswith(_HEALTH):  # its watchers stay, and are no load
                yield
                return
            if not self._ready():
                raise errors.Unavailable("the model is not ready", reason="STARTING", retry_after=1.0)
            with orca.InHand(self._load, context):
                yield
        except errors.MeshError as error:
            await self._abort(context, error, request_id)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:  # the border: whatever else is our fault, and its text stays here
            _log.exception("call failed", extra={"method": method, "request_id": request_id})
            await self._abort(context, errors.Internal("internal error"), request_id)

    async def _abort(self, context: Context, error: errors.MeshError, request_id: str) -> None:
        """As `abort`, without its pushback: that is for the caller, and the gateway should ask another replica now."""
        trailers = (*status.details_of(error, request_id), *self._load.trailers())
        await context.abort(status.grpc_code(error), error.message, trailing_metadata=trailers)


def request_id_of(context: Context) -> str:
    """The request id that the gateway gave, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == metadata.REQUEST_ID and isinstance(value, str):
            return value
    return uuid.uuid4().hex


async def abort(context: Context, error: errors.MeshError, request_id: str) -> None:
    """Ends the call with `error` and its details. Raises AbortError."""
    await context.abort(
        status.grpc_code(error), error.message, trailing_metadata=status.trailing_metadata(error, request_id)
    )


def _wrap(handler: Any, guard: Guard, method: str) -> Any:
    """The same handler behind the guard, for whichever arity it has."""
    behaviour = handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream
    if handler.response_streaming:
        wrapped: Any = _streaming(behaviour, guard, method)
    else:
        wrapped = _unary(behaviour, guard, method)
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(
        wrapped,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _unary(behaviour: Any, guard: Guard, method: str) -> Any:
    async def call(request: Any, context: Context) -> Any:
        async with guard.around(method, context):
            return await behaviour(request, context)

    return call


def _streaming(behaviour: Any, guard: Guard, method: str) -> Any:
    async def call(request: Any, context: Context) -> None:
        async with guard.around(method, context):
            replies = behaviour(request, context)
            if not hasattr(replies, "__aiter__"):  # a method that writes to the context by itself
                await replies
                return
            try:
                async for reply in replies:
                    await context.write(reply)
            finally:
                await replies.aclose()

    return call
