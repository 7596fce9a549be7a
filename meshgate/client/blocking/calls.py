"""Sealed calls under way on a blocking channel: what gRPC returns, with replies opened as they are taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc

from meshgate import errors
from meshgate.client.blocking.caller import Caller
from meshgate.client.failure import CallFailed
from meshgate.client.retry import Attempts
from meshgate.client.seal import Exchange
from meshgate.v1 import sealed_pb2

if TYPE_CHECKING:  # generic in the stubs alone
    _Future = grpc.Future[Any]
else:
    _Future = grpc.Future


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


class SealedStream(_Proxy):
    """A stream of replies. Until the first is delivered, the call may be made again."""

    def __init__(self, caller: Caller, begin: Callable[[], tuple[Exchange, Any]], attempts: Attempts | None) -> None:
        """`attempts` None is a call that can't be made again."""
        self._caller = caller
        self._begin = begin
        self._attempts = attempts
        self._delivered = False
        self._cancelled = threading.Event()
        self._exchange, call = begin()
        super().__init__(call)

    def __iter__(self) -> SealedStream:
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
        for reply in self._call:
            if (opened := self._exchange.open_next(reply.segment)) is not None:
                self._delivered = True
                self._succeeded()
                return opened[0]
        self._exchange.close()
        raise StopIteration

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
