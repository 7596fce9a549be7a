"""Sealed calls under way on a blocking channel: what gRPC returns, with replies opened as they are taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from meshgate import errors
from meshgate.client import seal
from meshgate.client.blocking.caller import Caller, next_opened
from meshgate.client.failure import CallFailed, as_call_failed
from meshgate.client.retry import Attempts
from meshgate.client.seal import Exchange
from meshgate.rpc.channel import EOF
from meshgate.v1 import sealed_pb2

if TYPE_CHECKING:  # generic in the stubs alone
    _Future = grpc.Future[Any]
    _UnaryUnary = grpc.UnaryUnaryMultiCallable[Any, Any]
else:
    _Future = grpc.Future
    _UnaryUnary = grpc.UnaryUnaryMultiCallable


class _Proxy(grpc.Call):
    """A gRPC call, whose end may be one of our own making."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._failure: CallFailed | None = None

    def _ended(self) -> Any:
        return self._failure or self._call

    def _fail(self, error: errors.MeshError) -> CallFailed:
        """Ends the call with an error of ours."""
        self._failure = CallFailed(error)
        self._call.cancel()
        return self._failure

    def code(self) -> Any:
        return self._ended().code()

    def details(self) -> Any:
        return self._ended().details()

    def trailing_metadata(self) -> Any:
        return self._ended().trailing_metadata()

    def initial_metadata(self) -> Any:
        return self._call.initial_metadata()

    def is_active(self) -> bool:
        return self._failure is None and bool(self._call.is_active())

    def time_remaining(self) -> Any:
        return self._call.time_remaining()

    def cancel(self) -> Any:
        return self._call.cancel()

    def add_callback(self, callback: Callable[[], None]) -> Any:
        return self._call.add_callback(callback)


class SealedFuture(_Proxy, _Future):
    """A unary call's reply, to come."""

    def __init__(self, call: Any, open_reply: Callable[[sealed_pb2.CallResponse], Any]) -> None:
        super().__init__(call)
        self._open = open_reply
        self._lock = threading.Lock()
        self._opened: tuple[Any] | None = None

    def result(self, timeout: float | None = None) -> Any:
        """The reply. Raises RpcError, FutureTimeoutError or FutureCancelledError."""
        sealed = self._call.result(timeout)
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._opened is None:
                try:
                    self._opened = (self._open(sealed),)
                except errors.MeshError as error:
                    raise self._fail(error) from error
        return self._opened[0]

    def exception(self, timeout: float | None = None) -> Any:
        """How it failed, or None."""
        if (failure := self._call.exception(timeout)) is not None:
            return failure
        try:
            self.result(timeout)
        except CallFailed as error:
            return error
        return None

    def traceback(self, timeout: float | None = None) -> Any:
        """Where it failed, or None."""
        failure = self.exception(timeout)
        return None if failure is None else failure.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Calls `fn` with this future."""
        self._call.add_done_callback(lambda _: fn(self))

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def running(self) -> bool:
        return bool(self._call.running())

    def done(self) -> bool:
        return bool(self._call.done())


class SealedUnaryUnary(_UnaryUnary):
    """A unary method."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any
    ) -> Any:
        return self.with_call(request, timeout, metadata, *args, **rest)[0]

    def with_call(
        self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any
    ) -> tuple[Any, Any]:
        """The reply, and gRPC's call."""
        return self._caller.answer(self._method, request, timeout, metadata, seal.settings(*args, **rest))

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any) -> Any:
        """As gRPC's, but that it gets token and key before it returns, and makes one attempt."""
        exchange, sent = self._caller.begin(self._method, self._caller.attempts(timeout), metadata)
        with as_call_failed():
            sealed = exchange.seal_unary(request)
        call = self._caller.sealed.Call.future(sealed, timeout=timeout, metadata=sent, **seal.settings(*args, **rest))
        return SealedFuture(call, exchange.open_unary)


Begin = Callable[[], tuple[Exchange, Any]]


class _Replies(_Proxy):
    """A stream of replies. Until the first is delivered, the call may be made again."""

    def __init__(self, caller: Caller, begin: Begin, attempts: Attempts, *, again: bool) -> None:
        self._caller = caller
        self._begin = begin
        self._attempts = attempts if again else None
        self._delivered = False
        self._cancelled = threading.Event()
        self._exchange, call = begin()
        super().__init__(call)

    def __iter__(self) -> _Replies:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                return self._read()
            except errors.MeshError as error:
                raise self._fail(error) from error
            except grpc.RpcError as error:
                self._begin_again(error)

    def cancel(self) -> Any:
        """Ends the call, an attempt to come included."""
        self._cancelled.set()
        return super().cancel()

    def _read(self) -> Any:
        if self._failure is not None:
            raise self._failure
        if (reply := next_opened(self._exchange, self._call)) is EOF:
            raise StopIteration
        self._delivered = True
        self._succeeded()
        return reply

    def _succeeded(self) -> None:
        if self._attempts is not None:
            self._attempts.succeeded()
            self._attempts = None

    def _begin_again(self, error: grpc.RpcError) -> None:
        """Raises `error` unless the call may be made again."""
        if self._failure is not None or self._delivered or self._cancelled.is_set():
            raise error
        if self._cancelled.wait(self._caller.pause(error, self._exchange.key, self._attempts)):
            raise error
        self._exchange, self._call = self._begin()


class SealedUnaryStreamCall(_Replies):
    """A call whose server streams."""


class SealedStreamStreamCall(_Replies):
    """A call whose both sides stream. It is made once: requests are sent as they come."""
