"""Puts the token on every call of an asyncio channel, and keeps the status of those that are refused half-way."""

from __future__ import annotations

import time
from typing import Any

import grpc

from meshgate.client.aio.token_source import AsyncTokenSource
from meshgate.client.failure import as_aio_failure
from meshgate.rpc.metadata import AUTHORIZATION
from meshgate.rpc.private import stream_status


class _WithToken:
    """What the four arities share."""

    def __init__(self, source: AsyncTokenSource) -> None:
        self._source = source

    async def _with_token(self, details: Any) -> Any:
        """The details with a token, and with what time is left after getting it."""
        sent = tuple(details.metadata or ())
        if any(key == AUTHORIZATION for key, _ in sent):
            return details
        began = time.monotonic()
        with as_aio_failure():
            token = await self._source.get(details.timeout)
        metadata = grpc.aio.Metadata(*sent, (AUTHORIZATION, f"Bearer {token.value}"))
        timeout = details.timeout
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - began))
        return details._replace(metadata=metadata, timeout=timeout)


class _UnaryUnary(_WithToken, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await self._with_token(client_call_details), request)


class _UnaryStream(_WithToken, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await self._with_token(client_call_details), request)


class _StreamUnary(_WithToken, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(await self._with_token(client_call_details), request_iterator)


class _StreamStream(_WithToken, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return stream_status.preserve_status(
            await continuation(await self._with_token(client_call_details), request_iterator)
        )


class _Kept(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return stream_status.preserve_status(await continuation(client_call_details, request_iterator))


def interceptors(source: AsyncTokenSource | None) -> list[Any]:
    """One for each arity: grpc.aio takes an interceptor for one alone. Without a source callers bring their tokens."""
    if source is None:
        return [_Kept()]
    return [_UnaryUnary(source), _UnaryStream(source), _StreamUnary(source), _StreamStream(source)]
