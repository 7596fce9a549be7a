"""Where threads and grpc differ from asyncio and grpc.aio; `meshgate.client.aio.transport` is its counterpart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from time import sleep
from typing import Any, Self

import grpc

from meshgate.client.failure import as_call_failed as as_failure
from meshgate.rpc.channel import EOF

__all__ = ["ChannelProxy", "Lock", "as_failure", "each", "made", "next_reply", "sleep", "unary", "within"]


def within(seconds: float) -> AbstractContextManager[None]:
    """A context that sets no bound: a thread that waits cannot be interrupted. gRPC itself bounds each of its calls."""
    return nullcontext()


def made(make: Callable[[], str | Awaitable[str]]) -> str:
    """The token that `make` returns. Raises TypeError for an asynchronous one."""
    value = make()
    if not isinstance(value, str):
        raise TypeError("an asynchronous token source needs an asynchronous channel")
    return value


def unary(method: Any, request: Any, **settings: Any) -> tuple[Any, Any]:
    """The reply of a unary call, and gRPC's call. Raises RpcError."""
    reply, call = method.with_call(request, **settings)
    return reply, call


def next_reply(call: Any) -> Any:
    """The next reply of a stream, or EOF. Raises RpcError."""
    return next(call, EOF)


def each(requests: Iterable[Any]) -> Iterator[Any]:
    """The requests of a stream; gRPC takes them on a thread of its own."""
    return iter(requests)


class ChannelProxy(grpc.Channel):
    """A channel that passes everything but the calls to another."""

    _channel: Any

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:
        """As gRPC's."""
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As gRPC's."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """As gRPC's."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
