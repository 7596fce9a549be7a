"""Puts the token on every call of a blocking channel.

An interceptor and not call credentials: gRPC asks those on a new thread each call, and reports their failure as
UNAVAILABLE, which would be retried.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from meshgate.client.blocking.token_source import TokenSource
from meshgate.client.failure import as_call_failed
from meshgate.rpc.metadata import AUTHORIZATION


class _Fields(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Details(_Fields, grpc.ClientCallDetails):
    """What gRPC passes on."""


class TokenInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """For all four arities, which differ in nothing here."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)

    def _with_token(self, details: Any) -> Any:
        sent = tuple(details.metadata or ())
        if any(key == AUTHORIZATION for key, _ in sent):
            return details
        with as_call_failed():
            token = self._source.get()
        metadata = (*sent, (AUTHORIZATION, f"Bearer {token.value}"))
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
