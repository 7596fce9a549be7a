"""Unary calls on a channel, for who makes very many of them and has bytes on both ends.

grpc.aio makes a task and four objects for each call, so that a call can be awaited twice, asked for its parts and
intercepted. A gateway needs none of that, and it is a tenth of what a call costs it: docs/adr/0103 has the figures.
Here one coroutine is the call, and cancelling it cancels the call.

This leans on names of grpcio that are not public (what its own calls are made of);
tests/integration/rpc/test_fast_unary_client.py fails where a new grpcio goes another way.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, NamedTuple

import grpc

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_LEFT: Final = "the caller left"
_CLOSING: Final = "the channel is closed"

Metadata = tuple[tuple[str, str | bytes], ...]


class Answer(NamedTuple):
    """How a call ended that ended well."""

    reply: bytes
    trailers: Metadata


class FastUnaryClient:
    """The unary calls of one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        made: Any = channel
        self._channel = made._channel  # see above
        self._under_way: set[Any] = set()
        self._last = asyncio.Event()

    async def call(self, method: bytes, request: bytes, timeout: float, metadata: Metadata) -> Answer:
        """Calls `method`, its path. `timeout` is in seconds. Raises grpc.aio.AioRpcError, as grpc.aio's own calls."""
        made = self._channel.call(method, time.time() + timeout, None, None)
        self._under_way.add(made)
        try:
            reply = await made.unary_unary(request, metadata)
        except asyncio.CancelledError:
            made.cancel(_LEFT)
            raise
        finally:
            self._done(made)
        status = await made.status()  # it is here: who has the reply has the status
        if made.is_ok():
            return Answer(reply, status.trailing_metadata())
        raise await _error(made, status)

    async def drain(self, grace: float) -> None:
        """Returns when no call is under way. Those that still are after `grace` seconds end as CANCELLED."""
        try:
            async with asyncio.timeout(grace):
                while self._under_way:
                    self._last.clear()
                    await self._last.wait()
        except TimeoutError:
            for made in self._under_way:
                made.cancel(_CLOSING)

    def _done(self, made: Any) -> None:
        self._under_way.discard(made)
        if not self._under_way:
            self._last.set()


async def _error(made: Any, status: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        _CODES[status.code()],
        grpc.aio.Metadata.from_tuple(await made.initial_metadata()),
        grpc.aio.Metadata.from_tuple(status.trailing_metadata()),
        status.details(),
        status.debug_error_string(),
    )
