"""The guard around every method of a service: allowed callers, readiness, the time left, and errors as statuses.

The order is that of `Guard.run`. Each arity of gRPC is one thin adapter around it. A single request is read here, after
the checks. Methods with one reply have bytes at both ends, so that they are served without grpc.aio's layers: see
shield.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from meshgate import errors
from meshgate.rpc import channel, metadata, orca, status, tls
from meshgate.rpc.call import compression
from meshgate.rpc.call.cancellation import caller_left

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

_HEALTH = "/grpc.health.v1.Health/"


class PeerPolicy:
    """The SPIFFE IDs that may call each method. A method without a pattern cannot be called."""

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


class Guard:
    """One for all methods of a service."""

    def __init__(self, peers: PeerPolicy, ready: Callable[[], bool], load: orca.Load) -> None:
        self._peers = peers
        self._ready = ready
        self._load = load

    def wrap(self, method: str, handler: Any) -> Any:
        """The same handler behind the guard. Only registered methods come here, so the policy's cache is bounded."""
        if _is_generated(handler):
            handler = _UNIMPLEMENTED
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(_answering(handler, self, method))
        return grpc.stream_stream_rpc_method_handler(
            _streaming(handler, self, method), response_serializer=handler.response_serializer
        )

    async def run(self, method: str, context: Context, work: Callable[[], Awaitable[_T]]) -> _T:
        """Runs a call between the checks and the renaming of its errors."""
        try:
            self._peers.check(method, tls.spiffe_ids(context.auth_context()))
            if method.startswith(_HEALTH):  # its watchers stay, and are no load
                return await work()
            if not self._ready():
                raise errors.Unavailable("the model is not ready", reason="STARTING", retry_after=1.0)
            with orca.InHand(self._load, context):
                return await work()
        except errors.MeshError as error:
            let_go(error)
            await self._abort(context, error, request_id_of(context))
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            if caller_left():
                raise
            await self._abort(context, _dropped(), request_id_of(context))
        except Exception:  # the border: whatever else is our fault, and its text stays here
            request_id = request_id_of(context)
            _log.exception("call failed", extra={"method": method, "request_id": request_id})
            await self._abort(context, errors.Internal("internal error"), request_id)

    async def _abort(self, context: Context, error: errors.MeshError, request_id: str) -> NoReturn:
        """As `abort`, without its pushback: that is for the caller, and the gateway should ask another replica now."""
        trailers = (*status.details_of(error, request_id), *self._load.trailers())
        await context.abort(status.grpc_code(error), error.message, trailing_metadata=trailers)


def _dropped() -> errors.Unavailable:
    """The error of a call that waited for something that the stopping server gave up."""
    return errors.Unavailable("this server is about to stop", reason="DRAINING", retry_after=1.0)


def request_id_of(context: Context) -> str:
    """The request id that the gateway gave, or a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == metadata.REQUEST_ID and isinstance(value, str):
            return value
    return uuid.uuid4().hex


def let_go(error: BaseException | None) -> None:
    """Breaks the circle of an error, its frames and the call's messages.

    Only the garbage collector would find that circle. It runs seldom, and a refused caller's megabytes would stay.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


async def abort(context: Context, error: errors.MeshError, request_id: str) -> NoReturn:
    """Ends the call with `error` and its details. Raises AbortError."""
    await context.abort(
        status.grpc_code(error), error.message, trailing_metadata=status.trailing_metadata(error, request_id)
    )


def _is_generated(handler: Any) -> bool:
    """Whether a method is the one that protoc wrote, which raises: the servicer has none of its own."""
    methods = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
    return any(getattr(method, "__module__", "").endswith("_pb2_grpc") for method in methods if method is not None)


async def _unimplemented(_: Any, __: Any) -> NoReturn:
    raise errors.Unimplemented("no such method", reason="METHOD_UNKNOWN")


_UNIMPLEMENTED: Final[Any] = grpc.stream_unary_rpc_method_handler(_unimplemented)
"""The handler that replaces such a method: it reads nothing and logs nothing."""


def _answering(handler: Any, guard: Guard, method: str) -> Any:
    """A method with one reply."""
    answer = _of_many if handler.request_streaming else _of_one

    async def call(_: Any, context: Context) -> bytes:
        return await guard.run(method, context, partial(answer, handler, context))

    return call


async def _of_one(handler: Any, context: Context) -> bytes:
    """The reply to one request, as bytes."""
    return _serialised(handler, await handler.unary_unary(await _request(handler, context), context))


async def _of_many(handler: Any, context: Context) -> bytes:
    """The reply to a stream of requests, as bytes."""
    async with aclosing(_requests(handler, context)) as requests:
        return _serialised(handler, await handler.stream_unary(requests, context))


async def _requests(handler: Any, context: Context) -> AsyncGenerator[Any, None]:
    while (message := await context.read()) is not channel.EOF:
        yield _parsed(handler, message)


async def _request(handler: Any, context: Context) -> Any:
    """The one request. gRPC, asked to read it before it calls us, would leave a call without one unanswered."""
    message: Any = await context.read()
    if message is channel.EOF:
        raise errors.InvalidArgument("the call ended before its message", reason="MALFORMED")
    return _parsed(handler, message)


def _parsed(handler: Any, message: bytes) -> Any:
    try:
        return message if handler.request_deserializer is None else handler.request_deserializer(message)
    except DecodeError:
        raise compression.unreadable(message) from None


def _serialised(handler: Any, reply: Any) -> bytes:
    made: bytes = reply if handler.response_serializer is None else handler.response_serializer(reply)
    return made


def _streaming(handler: Any, guard: Guard, method: str) -> Any:
    """A method with any number of replies."""

    async def call(_: Any, context: Context) -> None:
        await guard.run(method, context, partial(_reply, handler, context))

    return call


async def _reply(handler: Any, context: Context) -> None:
    if not handler.request_streaming:
        await _send(handler.unary_stream(await _request(handler, context), context), context)
        return
    async with aclosing(_requests(handler, context)) as requests:
        await _send(handler.stream_stream(requests, context), context)


async def _send(replies: Any, context: Context) -> None:
    if not hasattr(replies, "__aiter__"):  # a method that writes to the context by itself
        await replies
        return
    try:
        async for reply in replies:
            await context.write(reply)
    finally:
        await replies.aclose()
