"""Where asyncio and grpc.aio differ from threads and grpc; `meshgate.client.blocking.transport` is its counterpart.

The rest of the sealed channel is written once, here in `aio`, and generated for blocking channels.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import Lock, sleep
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Self

import grpc

from meshgate.client.failure import as_aio_failure as as_failure

__all__ = ["ChannelProxy", "Lock", "as_failure", "each", "made", "next_reply", "sleep", "unary", "within"]


def within(seconds: float) -> asyncio.Timeout:
    """A context whose body raises TimeoutError after so many seconds."""
    return asyncio.timeout(seconds)


async def made(make: Callable[[], str | Awaitable[str]]) -> str:
    """The token that `make` returns. If it is not asynchronous, it runs on a thread, so that it may block."""
    value = make() if inspect.iscoroutinefunction(make) else await asyncio.to_thread(make)
    return value if isinstance(value, str) else await value


async def unary(method: Any, request: Any, **settings: Any) -> tuple[Any, Any]:
    """The reply of a unary call, and gRPC's call. Raises AioRpcError."""
    call = method(request, **settings)
    return await call, call


async def next_reply(call: Any) -> Any:
    """The next reply of a stream, or EOF. Raises AioRpcError."""
    return await call.read()


async def each(requests: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """The requests of a stream; grpc.aio takes iterators of both kinds."""
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


class ChannelProxy(grpc.aio.Channel):
    """A channel that passes everything but the calls to another."""

    _channel: Any

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
