"""Methods that need no token: health and, where it is switched on, reflection. They are registered beside the pipeline.

Their callers count as unauthenticated while a request is read. gRPC receives a message whole before its size is known,
up to twice `max_message_bytes`. So few requests are read at a time, and fewer of one network address. Long calls
(watchers of health, reflection) have slots of their own, and one address can have a part of these.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from gateway.audit.refusal_aggregator import network
from gateway.config import EdgeConfig
from gateway.edge.concurrency import ConnectionAdmission
from gateway.edge.idle_timeout import IdleTimeouts
from gateway.routes import PUBLIC_ROUTES
from meshgate import errors
from meshgate.rpc import channel, guard
from meshgate.rpc.call import compression
from meshgate.rpc.call.connection_slots import ConnectionSlots
from meshgate.rpc.health import MAX_REQUEST_BYTES, too_large
from meshgate.rpc.private import names

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_READ_SECONDS: Final = 5.0
"""How long a request may take to arrive, its turn included. It is a few bytes, sent together with the headers."""
_END_SECONDS: Final = 1.0
"""How long an error may take to leave."""
_READERS: Final = 16
_READERS_EACH: Final = 2
_TALKERS_EACH: Final = 8
"""The same for reflection, whose callers wait between two requests of one call."""
_WAITING_EACH: Final = 100
"""Requests of one address that wait for their turn to be read."""
_GONE: Final = (grpc.aio.UsageError, *names.CALL_ENDED)
"""The errors of writing and aborting when the caller has left."""


class OpenMethods:
    """Reads requests of unauthenticated callers, and stands around the handlers of their methods."""

    def __init__(self, config: EdgeConfig, entrance: ConnectionAdmission) -> None:
        self.watchers = ConnectionSlots(config.max_watchers, config.max_watchers_per_address)
        """Those who hold a call for long."""
        self._entrance = entrance
        self._turns = FairTurns(_READERS, _READERS_EACH, _WAITING_EACH)
        self._talks = FairTurns(_READERS, _TALKERS_EACH, _WAITING_EACH)
        self._first = IdleTimeouts(min(_READ_SECONDS, config.first_message_seconds))
        self._readers = IdleTimeouts(config.slow_reader_seconds)

    def stop(self) -> None:
        """Leaves no timer behind."""
        self._first.stop()
        self._readers.stop()

    async def read(self, context: Any, turns: FairTurns | None = None) -> Any:
        """One message, or channel.EOF. Raises MeshError where it is too large, or a caller is too many or too slow."""
        with self._entrance.visit():
            try:
                return await self._first.wait(_read(turns or self._turns, context))
            except TimeoutError:
                raise errors.DeadlineExceeded("the caller sent no message in time", reason="SILENT_WRITER") from None

    def around(self, method: str, handler: Any) -> Any:
        """The handler that is registered for `method`: as it is for those of the pipeline."""
        if method in PUBLIC_ROUTES:
            return handler
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(_ending(self._lasting(handler.stream_unary)))
        if handler.request_deserializer is None:
            return grpc.stream_stream_rpc_method_handler(_ending(handler.stream_stream))
        return grpc.stream_stream_rpc_method_handler(_ending(self._conversation(handler)))

    def _lasting(self, serve: Callable[[Any, Any], Awaitable[_T]]) -> Callable[[Any, Any], Awaitable[_T]]:
        """The same, with a slot held until the reply has left. An unread reply stays in gRPC."""

        async def call(requests: Any, context: Any) -> _T:
            reply = await serve(requests, context)
            held = ExitStack()
            held.enter_context(self.watchers.place(network(context.peer())))
            _task().add_done_callback(lambda _: held.close())
            return reply

        return call

    def _conversation(self, handler: Any) -> Callable[[Any, Any], Awaitable[None]]:
        """A generated handler whose both sides stream, as bytes: reflection."""

        async def call(_: Any, context: Any) -> None:
            with self.watchers.place(network(context.peer())):
                async with aclosing(self._requests(handler, context)) as requests:
                    async for reply in handler.stream_stream(requests, context):
                        await self._write(context, handler.response_serializer(reply))

        return call

    async def _requests(self, handler: Any, context: Any) -> AsyncGenerator[Any, None]:
        while (message := await self.read(context, self._talks)) is not channel.EOF:
            yield _parsed(handler, message)

    async def _write(self, context: Any, reply: bytes) -> None:
        try:
            await self._readers.wait(context.write(reply))
        except TimeoutError:
            raise errors.DeadlineExceeded("the caller read too slowly", reason="SLOW_READER") from None


class FairTurns:
    """A fair queue of requests to read: a few at a time, fewer of one address, in order. For one event loop."""

    def __init__(self, most: int, most_each: int, waiting_each: int) -> None:
        self._most = asyncio.Semaphore(most)
        self._most_each = most_each
        self._waiting_each = waiting_each
        self._asked: Counter[str] = Counter()
        self._each: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Waits for a turn. Raises LimitExceeded (OVERLOADED) where too many of the address wait already."""
        if self._asked[address] >= self._most_each + self._waiting_each:
            raise errors.LimitExceeded("too many such calls at once", reason="OVERLOADED", retry_after=1.0)
        self._asked[address] += 1
        try:
            async with self._each.setdefault(address, asyncio.Semaphore(self._most_each)), self._most:
                yield
        finally:
            self._leave(address)

    def _leave(self, address: str) -> None:
        self._asked[address] -= 1
        if not self._asked[address]:
            del self._asked[address], self._each[address]


async def _read(turns: FairTurns, context: Any) -> Any:
    async with turns.turn(network(context.peer())):
        message = await context.read()
        if message is channel.EOF or len(message) <= MAX_REQUEST_BYTES:
            return message
        del message  # or the error's traceback would hold it for as long as anyone holds the error
        raise too_large()


def _parsed(handler: Any, message: bytes) -> Any:
    try:
        return handler.request_deserializer(message)
    except DecodeError:
        raise compression.unreadable(message) from None


def _ending(serve: Callable[[Any, Any], Awaitable[_T]]) -> Callable[[Any, Any], Awaitable[_T]]:
    """The same, with a status for each error. Nothing that a caller does is logged."""

    async def call(requests: Any, context: Any) -> _T:
        try:
            return await _answered(serve, requests, context)
        except _GONE:
            raise asyncio.CancelledError from None

    return call


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call is a task")
    return task


async def _end(context: Any, error: errors.MeshError, request_id: str) -> NoReturn:
    """Ends the call with `error`. A caller who does not read gets it once it does; nothing of ours waits for that."""
    try:
        async with asyncio.timeout(_END_SECONDS):
            await guard.abort(context, error, request_id)
    except TimeoutError:
        raise asyncio.CancelledError from None


async def _answered(serve: Callable[[Any, Any], Awaitable[_T]], requests: Any, context: Any) -> _T:
    try:
        return await serve(requests, context)
    except errors.MeshError as error:
        await _end(context, error, uuid.uuid4().hex)
    except (*_GONE, grpc.aio.AbortError):
        raise
    except Exception:  # the border: whatever else is our fault, and its text stays here
        request_id = uuid.uuid4().hex
        _log.exception("call failed", extra={"request_id": request_id})
        await _end(context, errors.Internal("internal error"), request_id)
