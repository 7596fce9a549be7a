"""The asyncio channel: a grpc.aio.Channel for generated stubs, with a token, retries and, if wanted, seals."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, cast

import grpc

from meshgate.client import options as settings
from meshgate.client.aio.interceptor import interceptors
from meshgate.client.aio.sealed import SealedChannel
from meshgate.client.aio.token_source import AsyncTokenSource
from meshgate.client.keys import Recipients, pins
from meshgate.client.seal import now_ms
from meshgate.client.token_cache import AsyncTokenOrigin

DEFAULT_TARGET = "127.0.0.1:8443"


def connect(
    target: str = DEFAULT_TARGET,
    *,
    ca: settings.Certificates = None,
    token: AsyncTokenOrigin | None = None,
    sealed: settings.Sealed = False,
    pinned_fingerprints: Collection[str] = (),
    client_certificate: tuple[bytes, bytes] | None = None,
    proxy: bool | None = None,
    options: Iterable[tuple[str, Any]] = (),
) -> grpc.aio.Channel:
    """As `meshgate.client.connect`, for asyncio. A function that makes tokens may be asynchronous; one that is not runs
    on a thread, so that it may block.
    """
    pinned = pins(pinned_fingerprints)
    source = None if token is None else AsyncTokenSource(token)
    channel = grpc.aio.secure_channel(
        target,
        settings.credentials(ca, client_certificate),
        options=settings.channel_options(options, target=target, proxy=proxy),
        interceptors=cast(Any, interceptors(source)),
    )
    if not sealed:
        return channel
    return SealedChannel(channel, source, Recipients(pinned, now_ms, sealed))
