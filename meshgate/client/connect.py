"""Opening channels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from meshgate.client.sealed import SealedChannel
from meshgate.client.sealed_aio import SealedAioChannel
from meshgate.client.sealing import Sealer
from meshgate.client.tokens import Source, TokenSource
from meshgate.runtime import channel

DEFAULT_TARGET: Final = "127.0.0.1:8443"

Option = tuple[str, Any]


def connect(
    target: str = DEFAULT_TARGET,
    *,
    ca: Path | str | bytes | None = None,
    token: Source | None = None,
    sealed: bool = False,
    pinned_fingerprints: Collection[str] = (),
    options: Sequence[Option] = (),
) -> grpc.Channel:
    """A channel for the generated synchronous stubs.

    `ca` is the CA to believe, as a path or PEM; without it, the system's. With `sealed` every call of a model is
    sealed; `pinned_fingerprints` (hexadecimal) are then the only keys that are sealed to. Raises OSError for a `ca`
    that can't be read, ValueError for `sealed` without a token.
    """
    source = _source(token)
    plain = grpc.secure_channel(target, _credentials(ca, source), options=[*channel.client_options(), *options])
    return SealedChannel(plain, _sealer(source, pinned_fingerprints)) if sealed else plain


def connect_aio(
    target: str = DEFAULT_TARGET,
    *,
    ca: Path | str | bytes | None = None,
    token: Source | None = None,
    sealed: bool = False,
    pinned_fingerprints: Collection[str] = (),
    options: Sequence[Option] = (),
) -> grpc.aio.Channel:
    """A channel for the generated asyncio stubs; otherwise as `connect`."""
    source = _source(token)
    plain = grpc.aio.secure_channel(target, _credentials(ca, source), options=[*channel.client_options(), *options])
    return SealedAioChannel(plain, _sealer(source, pinned_fingerprints)) if sealed else plain


def _source(token: Source | None) -> TokenSource | None:
    return None if token is None else TokenSource(token)


def _sealer(source: TokenSource | None, pinned: Collection[str]) -> Sealer:
    if source is None:
        raise ValueError("a sealed channel needs a token: envelopes are bound to its principal")
    return Sealer(source.get, pinned)


def _credentials(ca: Path | str | bytes | None, source: TokenSource | None) -> grpc.ChannelCredentials:
    roots = Path(ca).read_bytes() if isinstance(ca, str | Path) else ca
    transport = grpc.ssl_channel_credentials(root_certificates=roots)
    if source is None:
        return transport
    bearer = grpc.metadata_call_credentials(_Bearer(source.get))
    return grpc.composite_channel_credentials(transport, bearer)


class _Bearer(grpc.AuthMetadataPlugin):
    """Puts the token on every call (RFC 6750). gRPC sends call credentials over TLS alone."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            sent = (("authorization", f"Bearer {self._token()}"),)
        except Exception as error:  # whatever the source raised, the call fails with it
            callback((), error)
            return
        callback(sent, None)
