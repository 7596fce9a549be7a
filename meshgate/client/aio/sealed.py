"""An asyncio channel whose calls are sealed: the stubs' calls in, SealedService's calls out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import grpc

from meshgate.client import seal
from meshgate.client.aio.caller import Caller
from meshgate.client.aio.calls import SealedStreamStreamCall, SealedUnaryStreamCall, SealedUnaryUnaryCall
from meshgate.client.failure import as_aio_failure
from meshgate.client.keys import Recipients
from meshgate.client.token import AsyncTokenSource
from meshgate.v1 import sealed_pb2

if TYPE_CHECKING:  # generic in the stubs alone
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    _StreamStream = grpc.aio.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable
    _StreamStream = grpc.aio.StreamStreamMultiCallable


class SealedChannel(grpc.aio.Channel):
    """Looks like any channel. Methods without content go in the clear, those without a sealed form not at all."""

    def __init__(self, channel: grpc.aio.Channel, source: AsyncTokenSource | None, recipients: Recipients) -> None:
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

    async def close(self, grace: float | None = None) -> None:
        """As gRPC's."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As gRPC's."""
        state: grpc.ChannelConnectivity = self._channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As gRPC's."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As gRPC's."""
        await self._channel.channel_ready()

    async def __aenter__(self) -> SealedChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class SealedUnaryUnary(_UnaryUnary):
    """A unary method."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any
    ) -> Any:
        return SealedUnaryUnaryCall(self._made(request, timeout, metadata, seal.settings(*args, **rest)), timeout)

    async def _made(self, request: Any, timeout: float | None, metadata: Any, rest: Any) -> tuple[Any, Any]:
        """Makes attempts until one is answered or none is left. Returns the reply and gRPC's call."""
        attempts = self._caller.attempts(timeout)
        while True:
            exchange, sent = await self._caller.begin(self._method, attempts, metadata)
            try:
                with as_aio_failure():
                    sealed = exchange.seal_unary(request)
                    call = self._caller.sealed.Call(sealed, timeout=attempts.remaining(), metadata=sent, **rest)
                    reply = await call
                    attempts.succeeded()
                    return exchange.open_unary(reply), call
            except grpc.aio.AioRpcError as error:
                await asyncio.sleep(self._caller.pause(error, exchange.key, attempts))


class SealedUnaryStream(_UnaryStream):
    """A method whose server streams."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self, request: Any, timeout: float | None = None, metadata: Any = None, *args: Any, **rest: Any
    ) -> Any:
        attempts = self._caller.attempts(timeout)

        async def begin() -> tuple[seal.Exchange, Any]:
            exchange, sent = await self._caller.begin(self._method, attempts, metadata)
            settings = {"timeout": attempts.remaining(), "metadata": sent, **seal.settings(*args, **rest)}
            with as_aio_failure():
                first = exchange.seal_next(request)
            return exchange, self._caller.sealed.CallStream([first], **settings)

        return SealedUnaryStreamCall(self._caller, begin, attempts, again=True)


class SealedStreamStream(_StreamStream):
    """A method whose both sides stream."""

    def __init__(self, caller: Caller, method: seal.Method) -> None:
        self._caller = caller
        self._method = method

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        *args: Any,
        **rest: Any,
    ) -> Any:
        attempts = self._caller.attempts(timeout)

        async def begin() -> tuple[seal.Exchange, Any]:
            exchange, sent = await self._caller.begin(self._method, attempts, metadata)
            settings = {"timeout": attempts.remaining(), "metadata": sent, **seal.settings(*args, **rest)}
            messages = None if request_iterator is None else _sealed(exchange, request_iterator)
            return exchange, self._caller.sealed.CallStream(messages, **settings)

        return SealedStreamStreamCall(self._caller, begin, attempts, again=False)


async def _sealed(
    exchange: seal.Exchange, requests: AsyncIterable[Any] | Iterable[Any]
) -> AsyncIterator[sealed_pb2.CallStreamRequest]:
    """Seals requests as gRPC takes them. Replies come only after the envelope."""
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield exchange.seal_next(request)
    else:
        for request in requests:
            yield exchange.seal_next(request)
    if (end := exchange.seal_end()) is not None:
        yield end
