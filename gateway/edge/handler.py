"""The gateway's edge: gRPC calls of any method and arity, as bytes, into the pipeline and back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import grpc

from gateway.authentication import thumbprint
from gateway.call import Call, Replies, Requests
from gateway.config import EdgeConfig
from gateway.edge.idle_timeout import IdleTimeouts
from gateway.pipeline import Pipeline
from gateway.routes import PUBLIC_ROUTES, Route
from meshgate import errors
from meshgate.rpc import guard, metadata
from meshgate.rpc.private import next_message
from meshgate.rpc.status import TOO_LARGE

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[bytes, bytes]
else:
    Context = grpc.aio.ServicerContext

_log = logging.getLogger(__name__)

_NO_DEADLINE: Final = 86_400.0 * 365
"""gRPC gives a call without a deadline one that is further away than this."""

_ENTRY_BYTES: Final = 32
"""Bytes that an entry of metadata counts beside its name and value (RFC 9113 section 6.5.2)."""

_END_SECONDS: Final = 1.0
"""How long an error may take to leave: that of a caller who does not read waits behind what it has not read."""


class EdgeHandler(grpc.GenericRpcHandler):
    """Takes every method that is not registered otherwise; those we don't have are refused by the pipeline too."""

    def __init__(self, pipeline: Pipeline, config: EdgeConfig) -> None:
        self._pipeline = pipeline
        self._max_metadata = config.max_metadata_bytes
        self._first = IdleTimeouts(config.first_message_seconds)
        self._asks_certificate = config.tls.require_client_certificate
        self._writers = IdleTimeouts(config.silent_writer_seconds)
        self._readers = IdleTimeouts(config.slow_reader_seconds)
        self._calls: dict[asyncio.Task[Any], Call] = {}
        self._handlers = {path: self._handler(route) for path, route in PUBLIC_ROUTES.items()}
        self._unknown: Any = grpc.stream_stream_rpc_method_handler(self._stream_of(""))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method."""
        method = str(handler_call_details.method)
        return self._handlers.get(method) or self._unknown

    @property
    def lost_patience(self) -> Mapping[str, int]:
        """Calls ended since the start because their caller was too slow, by what at."""
        return {"first_message": self._first.ended, "writing": self._writers.ended, "reading": self._readers.ended}

    async def drain(self) -> None:
        """Ends the calls that go on, and tells their callers that the gateway stops (DRAINING), where they listen."""
        calls = dict(self._calls)
        for task, call in calls.items():
            call.drained = True
            task.cancel()
        if calls:
            await asyncio.wait(calls, timeout=_END_SECONDS)

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._first.stop()
        self._writers.stop()
        self._readers.stop()

    def _handler(self, route: Route) -> Any:
        if route.client_streams:
            return grpc.stream_stream_rpc_method_handler(self._stream_of(route.path))
        if route.server_streams:
            return grpc.stream_stream_rpc_method_handler(self._unary_stream_of(route.path))
        return grpc.stream_unary_rpc_method_handler(self._unary_of(route.path))

    # To gRPC every request is a stream. A lone message it would receive before it calls us: from anyone, whole, and
    # waiting for one that does not come for as long as the caller likes.

    def _unary_of(self, path: str) -> Any:
        async def serve(_: Any, context: Context) -> bytes:
            call = self._call(path, context)
            replies = BufferedReply(call)
            await self._run(call, self._one(context, call), replies, context)
            return replies.message

        return serve

    def _unary_stream_of(self, path: str) -> Any:
        async def serve(_: Any, context: Context) -> None:
            call = self._call(path, context)
            await self._run(call, self._one(context, call), ReplyStream(context, call, self._readers), context)

        return serve

    def _stream_of(self, path: str) -> Any:
        async def serve(_: Any, context: Context) -> None:
            call = self._call(path, context)
            await self._run(
                call,
                RequestStream(context, call, self._first, self._writers),
                ReplyStream(context, call, self._readers),
                context,
            )

        return serve

    def _one(self, context: Context, call: Call) -> RequestStream:
        """Of a lone message the end is read too, which comes with it: a second one is an error and not ignored."""
        return RequestStream(context, call, self._first, self._first)

    def _call(self, path: str, context: Context) -> Call:
        """A call as it arrives."""
        remaining = context.time_remaining()
        limited = remaining is not None and remaining < _NO_DEADLINE
        return Call(
            method=path,
            peer=context.peer(),
            authorization=self._authorization(context),
            deadline=time.monotonic() + remaining if limited and remaining is not None else None,
            certificate=_certificate(context) if self._asks_certificate else None,
        )

    def _authorization(self, context: Context) -> str | None:
        """The token as sent, or None. Two tokens count as none, because it is not defined which one holds.

        A caller with too much metadata has no token either. gRPC refuses such a call only after the client has
        acknowledged our settings, which a hostile client need not do.
        """
        size, found = 0, []
        for key, value in context.invocation_metadata() or ():
            size += len(key) + len(value) + _ENTRY_BYTES
            if key == metadata.AUTHORIZATION:
                found.append(value)
        fits = size <= self._max_metadata
        return found[0] if fits and len(found) == 1 and isinstance(found[0], str) else None

    async def _run(self, call: Call, requests: Requests, replies: Replies, context: Context) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call is served by a task")
        self._calls[task] = call
        try:
            await self._pipeline.run(call, requests, replies)
            if call.trailers:
                context.set_trailing_metadata(call.trailers)
        except next_message.CallerLeft:
            raise asyncio.CancelledError from None
        except errors.MeshError as error:
            guard.let_go(error)
            await _end(context, error, call.request_id)
        except TimeoutError:
            await _end(context, errors.DeadlineExceeded("the deadline passed"), call.request_id)
        except asyncio.CancelledError:
            if not call.drained or task.uncancel():
                raise
            await _end(context, _draining(), call.request_id)
        except grpc.aio.AbortError:
            raise
        except Exception:  # the border: whatever else is our fault, and its text stays here
            _log.exception("call failed", extra={"method": call.method, "request_id": call.request_id})
            await guard.abort(context, errors.Internal("internal error"), call.request_id)
        finally:
            del self._calls[task]


def _draining() -> errors.Unavailable:
    return errors.Unavailable("this server is about to stop", reason="DRAINING", retry_after=1.0)


async def _end(context: Context, error: errors.MeshError, request_id: str) -> None:
    """Ends the call with `error`. A caller that does not read gets it later; the gateway waits a bounded time."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await guard.abort(context, error, request_id)
    except (TimeoutError, grpc.aio.InternalError):  # InternalError: the call has a status already, or has ended
        raise asyncio.CancelledError from None


def _certificate(context: Context) -> str | None:
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return thumbprint(pem) if pem is not None else None


class RequestStream:
    """Requests of a call whose client streams."""

    __slots__ = ("_begun", "_call", "_context", "_first", "_later")

    def __init__(self, context: Context, call: Call, first: IdleTimeouts, later: IdleTimeouts) -> None:
        """`first` is the idle timeout of a call that has not begun, `later` that of its further messages."""
        self._context = context
        self._call = call
        self._first = first
        self._later = later
        self._begun = False

    async def read(self) -> bytes | None:
        begun, self._begun = self._begun, True
        try:
            if begun:
                message = await self._later.wait(next_message.later())
            else:
                message = await self._first.wait(next_message.first(self._context))
        except TimeoutError:
            raise errors.DeadlineExceeded("the caller sent no message in time", reason="SILENT_WRITER") from None
        except next_message.MessageTooLarge:
            raise errors.LimitExceeded("the message is too large", reason=TOO_LARGE) from None
        if message is not None:
            self._call.bytes_in += len(message)
        return message


class BufferedReply:
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

    __slots__ = ("_call", "_context", "_patience")

    def __init__(self, context: Context, call: Call, patience: IdleTimeouts) -> None:
        self._context = context
        self._call = call
        self._patience = patience

    async def send(self, reply: bytes) -> None:
        self._call.bytes_out += len(reply)
        try:
            await self._patience.wait(self._context.write(reply))
        except TimeoutError:
            raise errors.DeadlineExceeded("the caller read too slowly", reason="SLOW_READER") from None
        except grpc.aio.InternalError:
            raise next_message.CallerLeft from None
