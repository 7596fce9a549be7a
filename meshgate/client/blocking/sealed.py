# Generated from meshgate/client/aio/sealed.py by `make sdk`. Change that file, not this one.
"""A channel whose calls are sealed: the stubs' calls in, SealedService's calls out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from meshgate.client import seal
from meshgate.client.blocking.caller import Caller, sealed_requests
from meshgate.client.blocking.calls import SealedStreamStreamCall, SealedUnaryStreamCall, SealedUnaryUnary
from meshgate.client.blocking.token_source import TokenSource
from meshgate.client.blocking.transport import ChannelProxy, as_failure
from meshgate.client.keys import Recipients

if TYPE_CHECKING:  # generic in the stubs alone
    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamStream = grpc.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryStream = grpc.UnaryStreamMultiCallable
    _StreamStream = grpc.StreamStreamMultiCallable


class SealedChannel(ChannelProxy):
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
            with as_failure():
                first = exchange.seal_next(request)
            return exchange, self._caller.sealed.CallStream(iter([first]), **settings)

        return SealedUnaryStreamCall(self._caller, begin, attempts, again=True)


class SealedStreamStream(_StreamStream):
    """A method whose both sides stream. It is tried once: requests taken from the iterator are gone."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        *args: Any,
        **rest: Any,
    ) -> Any:
        attempts = self._caller.attempts(timeout)

        def begin() -> tuple[seal.Exchange, Any]:
            exchange, sent = self._caller.begin(self._method, attempts, metadata)
            settings = {"timeout": attempts.remaining(), "metadata": sent, **seal.settings(*args, **rest)}
            messages = None if request_iterator is None else sealed_requests(exchange, request_iterator)
            return exchange, self._caller.sealed.CallStream(messages, **settings)

        return SealedStreamStreamCall(self._caller, begin, attempts, again=False)
