"""The blocking channel: a grpc.Channel for generated stubs, with a token, retries and, if wanted, seals."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import grpc

from meshgate.client import options as settings
from meshgate.client.blocking.interceptor import TokenInterceptor
from meshgate.client.blocking.sealed import SealedChannel
from meshgate.client.blocking.token_source import TokenSource
from meshgate.client.keys import Recipients, pins
from meshgate.client.seal import now_ms
from meshgate.client.token_cache import TokenOrigin

DEFAULT_TARGET = "127.0.0.1:8443"


def connect(
    target: str = DEFAULT_TARGET,
    *,
    ca: settings.Certificates = None,
    token: TokenOrigin | None = None,
    sealed: settings.Sealed = False,
    pinned_fingerprints: Collection[str] = (),
    client_certificate: tuple[bytes, bytes] | None = None,
    proxy: bool | None = None,
    options: Iterable[tuple[str, Any]] = (),
) -> grpc.Channel:
    """A channel to a gateway. Generated stubs work on it unchanged; close it, or use it as a context manager.

    `ca` is the CAs to believe: PEM, or the file that holds it; None is the system's. `token` is a token, a Path to a
    file (read again when it changes), or a function that makes one (called again before the token's `exp`, from
    whichever thread calls). A call's own `authorization` metadata goes before it. `sealed` seals every call of a model:
    True or "gateway" to the gateway, which forwards it in the clear to the service; "service" to the service, so that
    the gateway never sees what is said. `pinned_fingerprints` are then the keys to trust, in hexadecimal, and none
    trusts those that the gateway lists. `client_certificate` is a chain and its key, PEM. `options` are gRPC channel
    arguments.

    `proxy` says whether gRPC asks the proxy that `grpc_proxy`, `https_proxy` or `http_proxy` names; `no_proxy` lists
    exceptions. None asks it unless `target` is on this machine (a loopback address, `localhost` or a Unix socket).

    Calls that end UNAVAILABLE before anything was delivered are made again, a few times and no sooner than the gateway
    says. Limits are never retried. Raises OSError for a file that can't be read, ValueError for a bad fingerprint, and
    Unauthenticated for a `token` that is none.
    """
    pinned = pins(pinned_fingerprints)
    source = None if token is None else TokenSource(token)
    credentials = settings.credentials(ca, client_certificate)
    channel = grpc.secure_channel(
        target, credentials, options=settings.channel_options(options, target=target, proxy=proxy)
    )
    if source is not None:
        channel = grpc.intercept_channel(channel, TokenInterceptor(source))
    if not sealed:
        return channel
    return SealedChannel(channel, source, Recipients(pinned, now_ms, sealed))
