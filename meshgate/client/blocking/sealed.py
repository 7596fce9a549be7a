"""A blocking channel whose calls are sealed: the stubs' calls in, SealedService's calls out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from meshgate.client import seal
from meshgate.client.blocking.caller import Caller
from meshgate.client.blocking.calls import SealedFuture, SealedStream
from meshgate.client.failure import as_call_failed
from meshgate.client.keys import Recipients
from meshgate.client.token import TokenSource
from meshgate.v1 import sealed_pb2

if TYPE_CHECKING:  # generic in the stubs alone
    _UnaryUnary = grpc.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamStream = grpc.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = grpc.UnaryUnaryMultiCallable
    _UnaryStream = grpc.UnaryStreamMultiCallable
    _StreamStream = grpc.StreamStreamMultiCallable


class SealedChannel(grpc.Channel):
    """Looks like any channel. Methods without content go in the clear, those without a sealed form not at all."""

    def __init__(self, channel: grpc.Channel, source: TokenSource | None, recipients: Recipients) -> None:
        self._channel: Any = channel
        self._caller = Caller(channel, source, recipients)

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A unary method, sealed or, where it carries no content, not."""
        if not seal.is_sealed(method):
            return self._channel.unary_unary(method, *args, **kwargs)
        return SealedUnaryUnary(self._caller, seal.method(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same of a method whose server streams."""
        if not seal.is_sealed(method):
            return self._channel.unary_stream(method, *args, **kwargs)
        return SealedUnaryStream(self._caller, seal.method(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Raises Unimplemented (METHOD_UNSEALABLE): the contract has no such method that carries content."""
        if not seal.is_sealed(method):
            return self._channel.stream_unary(method, *args, **kwargs)
        raise seal.unsealable(method)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The same of a method whose both sides stream."""
        if not seal.is_sealed(method):
            return self._channel.stream_stream(method, *args, **kwargs)
        return SealedStreamStream(self._caller, seal.method(method, *args, **kwargs))

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """As gRPC's."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As gRPC's."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """As gRPC's."""
        self._channel.close()

    def __enter__(self) -> SealedChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
        """Makes attempts until one is answered or none is left."""
        attempts = self._caller.attempts(timeout)
        while True:
            exchange, sent = self._caller.begin(self._method, attempts, metadata)
            settings = {"timeout": attempts.remaining(), "metadata": sent, **seal.settings(*args, **rest)}
            try:
                with as_call_failed():
                    reply, call = self._caller.sealed.Call.with_call(exchange.seal_unary(request), **settings)
                    attempts.succeeded()
                    return exchange.open_unary(reply), call
            except grpc.RpcError as error:
                time.sleep(self._caller.pause(error, exchange.key, attempts))

    def future(self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any) -> Any:
        """As gRPC's, but that it gets token and key before it returns, and makes one attempt."""
        exchange, sent = self._caller.begin(self._method, self._caller.attempts(timeout), metadata)
        with as_call_failed():
            sealed = exchange.seal_unary(request)
        call = self._caller.sealed.Call.future(sealed, timeout=timeout, metadata=sent, **seal.settings(*args, **rest))
        return SealedFuture(call, exchange.open_unary)


class SealedUnaryStream(_UnaryStream):
    """A method whose server streams."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any
    ) -> Any:
        attempts = self._caller.attempts(timeout)

        def begin() -> tuple[seal.Exchange, Any]:
            exchange, sent = self._caller.begin(self._method, attempts, metadata)
            settings = {"timeout": attempts.remaining(), "metadata": sent, **seal.settings(*args, **rest)}
            with as_call_failed():
                first = exchange.seal_next(request)
            return exchange, self._caller.sealed.CallStream(iter([first]), **settings)

        return SealedStream(self._caller, begin, attempts)


class SealedStreamStream(_StreamStream):
    """A method whose both sides stream. It is tried once: requests taken from the iterator are gone."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self,
        request_iterator: Iterable[Any],
        timeout: float | None = None,
        metadata: Any = None,
        *args: Any,
        **rest: Any,
    ) -> Any:
        attempts = self._caller.attempts(timeout)

        def begin() -> tuple[seal.Exchange, Any]:
            exchange, sent = self._caller.begin(self._method, attempts, metadata)
            settings = {"timeout": attempts.remaining(), "metadata": sent, **seal.settings(*args, **rest)}
            return exchange, self._caller.sealed.CallStream(_sealed(exchange, request_iterator), **settings)

        return SealedStream(self._caller, begin, None)


def _sealed(exchange: seal.Exchange, requests: Iterable[Any]) -> Iterator[sealed_pb2.CallStreamRequest]:
    """Seals requests as gRPC takes them, on a thread of its own. Replies come only after the envelope."""
    for request in requests:
        yield exchange.seal_next(request)
    if (end := exchange.seal_end()) is not None:
        yield end
