"""The gateway's edge: gRPC calls of any method and arity, as bytes, into the pipeline and back."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from gateway.call import Call, Replies, Requests
from gateway.pipeline import Pipeline
from gateway.routes import PUBLIC_ROUTES, Route
from meshgate import errors
from meshgate.runtime import channel, interceptor, metadata

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[bytes, bytes]
else:
    Context = grpc.aio.ServicerContext

_log = logging.getLogger(__name__)

_NO_DEADLINE: Final = 86_400.0 * 365
"""gRPC gives a call without a deadline one that is further away than this."""

_FIRST_SECONDS: Final = 60.0
"""How long a stream may be open without its first message."""


class Edge(grpc.GenericRpcHandler):
    """Takes every method that is not registered otherwise; those we don't have are refused by the pipeline too."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._handlers = {path: self._handler(route) for path, route in PUBLIC_ROUTES.items()}
        self._unknown: Any = grpc.stream_stream_rpc_method_handler(self._stream_of(""))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method."""
        method = str(handler_call_details.method)
        return self._handlers.get(method) or self._unknown

    def _handler(self, route: Route) -> Any:
        if route.client_streams:
            return grpc.stream_stream_rpc_method_handler(self._stream_of(route.path))
        if route.server_streams:
            return grpc.unary_stream_rpc_method_handler(self._unary_stream_of(route.path))
        return grpc.unary_unary_rpc_method_handler(self._unary_of(route.path))

    def _unary_of(self, path: str) -> Any:
        async def serve(request: bytes, context: Context) -> bytes:
            call = call_of(path, context)
            replies = OneReply(call)
            await self._run(call, One(request, call), replies, context)
            return replies.message

        return serve

    def _unary_stream_of(self, path: str) -> Any:
        async def serve(request: bytes, context: Context) -> None:
            call = call_of(path, context)
            await self._run(call, One(request, call), ReplyStream(context, call), context)

        return serve

    def _stream_of(self, path: str) -> Any:
        async def serve(_: Any, context: Context) -> None:
            call = call_of(path, context)
            await self._run(call, RequestStream(context, call), ReplyStream(context, call), context)

        return serve

    async def _run(self, call: Call, requests: Requests, replies: Replies, context: Context) -> None:
        try:
            await self._pipeline.run(call, requests, replies)
            if call.trailers:
                context.set_trailing_metadata(call.trailers)
        except errors.MeshError as error:
            await interceptor.abort(context, error, call.request_id)
        except TimeoutError:
            await interceptor.abort(context, errors.DeadlineExceeded("the deadline passed"), call.request_id)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:  # the border: whatever else is our fault, and its text stays here
            _log.exception("call failed", extra={"method": call.method, "request_id": call.request_id})
            await interceptor.abort(context, errors.Internal("internal error"), call.request_id)


def call_of(path: str, context: Context) -> Call:
    """A call as it arrives."""
    remaining = context.time_remaining()
    limited = remaining is not None and remaining < _NO_DEADLINE
    return Call(
        method=path,
        peer=context.peer(),
        authorization=_authorization(context),
        deadline=time.monotonic() + remaining if limited and remaining is not None else None,
    )


def _authorization(context: Context) -> str | None:
    """The token as sent. Two of them are none at all: which one counts must not be a matter of opinion."""
    found = [value for key, value in context.invocation_metadata() or () if key == metadata.AUTHORIZATION]
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


class One:
    """Requests of a call with one message."""

    __slots__ = ("_call", "_message")

    def __init__(self, message: bytes, call: Call) -> None:
        self._message: bytes | None = message
        self._call = call

    async def read(self) -> bytes | None:
        message, self._message = self._message, None
        if message is not None:
            self._call.bytes_in = len(message)
        return message


class RequestStream:
    """Requests of a call whose client streams."""

    __slots__ = ("_begun", "_call", "_context")

    def __init__(self, context: Context, call: Call) -> None:
        self._context = context
        self._call = call
        self._begun = False

    async def read(self) -> bytes | None:
        message = await (self._later() if self._begun else self._first())
        if message is not None:
            self._call.bytes_in += len(message)
        return message

    async def _first(self) -> bytes | None:
        """Bounded, because a stream that never begins holds a place for nothing."""
        self._begun = True
        async with asyncio.timeout(min(self._call.remaining() or _FIRST_SECONDS, _FIRST_SECONDS)):
            return await self._later()

    async def _later(self) -> bytes | None:
        message: Any = await self._context.read()
        return None if message is channel.EOF else message


class OneReply:
    """The reply of a unary call: kept, because it leaves only after the audit record is on disk."""

    __slots__ = ("_call", "message")

    def __init__(self, call: Call) -> None:
        self.message = b""
        self._call = call

    async def send(self, reply: bytes) -> None:
        self.message = reply
        self._call.bytes_out = len(reply)


class ReplyStream:
    """Replies of a call whose server streams."""

    __slots__ = ("_call", "_context")

    def __init__(self, context: Context, call: Call) -> None:
        self._context = context
        self._call = call

    async def send(self, reply: bytes) -> None:
        self._call.bytes_out += len(reply)
        await self._context.write(reply)
