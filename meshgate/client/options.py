"""How a caller's channel is set: TLS, message sizes, and which calls gRPC itself retries."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import grpc

from meshgate.rpc import channel, targets

Certificates: TypeAlias = bytes | str | os.PathLike[str] | None
"""PEM of the CAs to believe, or the file that holds it. None is the system's."""

Sealed: TypeAlias = bool | Literal["gateway", "service"]
"""Whom calls are sealed to; True is the gateway."""

SEALED_SERVICE: Final = "meshgate.v1.SealedService"
_SERVICE_CONFIG: Final = "grpc.service_config"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How UNAVAILABLE is retried, as gRFC A6 has it. Times are in seconds."""

    attempts: int
    first: float
    longest: float
    factor: float
    throttle_tokens: float
    throttle_ratio: float


def credentials(ca: Certificates, client_certificate: tuple[bytes, bytes] | None) -> grpc.ChannelCredentials:
    """TLS credentials. `client_certificate` is a chain and its key, both PEM. Raises OSError for an unreadable file."""
    pem = ca if isinstance(ca, bytes) or ca is None else Path(ca).read_bytes()
    chain, key = client_certificate or (None, None)
    return grpc.ssl_channel_credentials(root_certificates=pem, private_key=key, certificate_chain=chain)


def channel_options(
    extra: Iterable[tuple[str, Any]] = (), *, target: str = "", proxy: bool | None = None
) -> channel.Options:
    """Options of a caller's channel; those in `extra` win.

    gRPC retries UNAVAILABLE, never sooner than the server says, and no limit or quota, which is RESOURCE_EXHAUSTED. It
    must not retry sealed calls, which a gateway opens only once: the sealed channel seals those again by itself.

    `proxy` says whether gRPC may ask the proxy of the environment. None allows it unless `target` is on this machine.
    """
    direct = targets.is_local(target) if proxy is None else not proxy
    base = dict(channel.client_options())
    config = json.loads(base[_SERVICE_CONFIG])
    config["methodConfig"] = [{"name": [{"service": SEALED_SERVICE}]}, *config["methodConfig"]]
    given = {**(dict(channel.DIRECT) if direct else {}), **dict(extra)}
    return tuple({**base, _SERVICE_CONFIG: json.dumps(config), **given}.items())


def retry_policy() -> RetryPolicy:
    """The policy of plain calls, for sealed ones."""
    config = json.loads(dict(channel.client_options())[_SERVICE_CONFIG])
    policy = next(item["retryPolicy"] for item in config["methodConfig"] if "retryPolicy" in item)
    return RetryPolicy(
        attempts=policy["maxAttempts"],
        first=_seconds(policy["initialBackoff"]),
        longest=_seconds(policy["maxBackoff"]),
        factor=policy["backoffMultiplier"],
        throttle_tokens=config["retryThrottling"]["maxTokens"],
        throttle_ratio=config["retryThrottling"]["tokenRatio"],
    )


def _seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))
