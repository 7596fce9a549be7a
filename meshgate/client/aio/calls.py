"""Sealed calls under way on an asyncio channel: what grpc.aio returns, with replies opened as they are taken.

A call begins with getting a token and a key, which may have to wait, while a stub returns its call at once. So the call
proper is the result of a task; cancelling one cancels the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

import grpc

from meshgate import errors
from meshgate.client import seal
from meshgate.client.aio.caller import Caller, next_opened
from meshgate.client.failure import aio_failure
from meshgate.client.retry import Attempts
from meshgate.client.seal import Exchange
from meshgate.rpc.channel import EOF

if TYPE_CHECKING:  # generic in the stubs alone
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = grpc.aio.UnaryStreamCall[Any, Any]
    _StreamStreamCall = grpc.aio.StreamStreamCall[Any, Any]
else:
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall
    _UnaryStreamCall = grpc.aio.UnaryStreamCall
    _StreamStreamCall = grpc.aio.StreamStreamCall

_CANCELLED = "Locally cancelled by application!"


class _Ended:
    """How a call ended that has no gRPC call of its own."""

    def __init__(self, error: grpc.aio.AioRpcError | None) -> None:
        self._error = error

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED if self._error is None else self._error.code()

    async def details(self) -> Any:
        return _CANCELLED if self._error is None else self._error.details()

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata() if self._error is None else self._error.trailing_metadata()

    async def debug_error_string(self) -> Any:
        return ""


class _Status:
    """The part of a call that says how it stands."""

    def __init__(self, timeout: float | None) -> None:
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    async def _end(self) -> Any:
        """What knows how the call ended."""
        raise NotImplementedError

    async def code(self) -> Any:
        return await (await self._end()).code()

    async def details(self) -> Any:
        return await (await self._end()).details()

    async def initial_metadata(self) -> Any:
        return await (await self._end()).initial_metadata()

    async def trailing_metadata(self) -> Any:
        return await (await self._end()).trailing_metadata()

    async def debug_error_string(self) -> Any:
        return await (await self._end()).debug_error_string()


async def _result(task: asyncio.Task[Any]) -> Any:
    """What a task ended with, without ending it: a call, or what stands for one."""
    await asyncio.wait({task})
    if task.cancelled():
        return _Ended(None)
    failure = task.exception()
    if failure is None:
        return task.result()
    if isinstance(failure, grpc.aio.AioRpcError):
        return _Ended(failure)
    raise failure


def _started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task whose failure nobody has to look at."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class SealedUnaryUnaryCall(_Status, _UnaryUnaryCall):
    """A unary call."""

    def __init__(self, work: Coroutine[Any, Any, tuple[Any, Any]], timeout: float | None) -> None:
        """`work` makes the call: it returns the reply and gRPC's call."""
        super().__init__(timeout)
        self._task = _started(work)

    def __await__(self) -> Generator[Any, None, Any]:
        reply, _ = yield from self._task.__await__()
        return reply

    async def _end(self) -> Any:
        ended = await _result(self._task)
        return ended[1] if isinstance(ended, tuple) else ended

    async def wait_for_connection(self) -> None:
        await asyncio.wait({self._task})

    def cancel(self) -> bool:
        return self._task.cancel()

    def cancelled(self) -> bool:
        return self._task.cancelled()

    def done(self) -> bool:
        return self._task.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._task.add_done_callback(lambda _: callback(self))


class SealedUnaryUnary(_UnaryUnary):
    """A unary method."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any
    ) -> Any:
        settings = seal.settings(*args, **rest)
        return SealedUnaryUnaryCall(self._caller.answer(self._method, request, timeout, metadata, settings), timeout)


Begin = Callable[[], Awaitable[tuple[Exchange, Any]]]


class _Replies(_Status):
    """A call whose server streams. Until the first reply is delivered, it may be made again."""

    def __init__(self, caller: Caller, begin: Begin, attempts: Attempts, *, again: bool) -> None:
        super().__init__(attempts.remaining())
        self._caller = caller
        self._begin = begin
        self._attempts = attempts
        self._again = again
        self._failure: grpc.aio.AioRpcError | None = None
        self._callbacks: list[Callable[[Any], None]] = []
        self._start = self._begun()

    def _begun(self, pause: float = 0.0) -> asyncio.Task[Any]:
        async def start() -> tuple[Exchange, Any]:
            await asyncio.sleep(pause)
            exchange, call = await self._begin()
            for callback in self._callbacks:
                call.add_done_callback(lambda _, chosen=callback: chosen(self))
            return exchange, call

        return _started(start())

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._replies()

    async def _replies(self) -> AsyncIterator[Any]:
        while (reply := await self.read()) is not EOF:
            yield reply

    async def read(self) -> Any:
        """The next reply, or EOF."""
        while True:
            if self._failure is not None:
                raise self._failure
            exchange, call = await self._start
            try:
                return await self._next(exchange, call)
            except errors.MeshError as error:
                call.cancel()
                self._failure = aio_failure(error)
                raise self._failure from error
            except grpc.aio.AioRpcError as error:
                if not self._again:
                    raise
                pause = self._caller.pause(error, exchange.key, self._attempts)
                self._start = self._begun(pause)

    async def _next(self, exchange: Exchange, call: Any) -> Any:
        reply = await next_opened(exchange, call)
        if self._again and reply is not EOF:
            self._attempts.succeeded()
            self._again = False
        return reply

    async def _end(self) -> Any:
        if self._failure is not None:
            return _Ended(self._failure)
        started = await _result(self._start)
        return started[1] if isinstance(started, tuple) else started

    async def wait_for_connection(self) -> None:
        _, call = await self._start
        await call.wait_for_connection()

    def _call(self) -> Any:
        """gRPC's call; None while it has not begun, or where it never will."""
        done = self._start.done() and not self._start.cancelled() and self._start.exception() is None
        return self._start.result()[1] if done else None

    def cancel(self) -> bool:
        self._again = False
        call = self._call()
        return bool(self._start.cancel() if call is None else call.cancel())

    def cancelled(self) -> bool:
        call = self._call()
        return bool(self._start.cancelled() if call is None else call.cancelled())

    def done(self) -> bool:
        call = self._call()
        return bool(self._start.done() if call is None else call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)
        call = self._call()
        if call is not None:
            call.add_done_callback(lambda _: callback(self))
        elif self._start.done():
            callback(self)


class SealedUnaryStreamCall(_Replies, _UnaryStreamCall):
    """A call whose server streams."""


class SealedStreamStreamCall(_Replies, _StreamStreamCall):
    """A call whose both sides stream. It is made once: requests are sent as they come."""

    async def write(self, request: Any) -> None:
        """Sends a request. Raises UsageError where the call was given its requests, InvalidStateError after its end."""
        exchange, call = await self._writable()
        await call.write(exchange.seal_next(request))

    async def done_writing(self) -> None:
        """Says that no request follows."""
        exchange, call = await self._writable()
        if (end := exchange.seal_end()) is not None:
            await call.write(end)
        await call.done_writing()

    async def _writable(self) -> tuple[Exchange, Any]:
        try:
            exchange, call = await self._start
        except grpc.aio.AioRpcError:
            raise asyncio.InvalidStateError("RPC already finished.") from None
        return exchange, call
