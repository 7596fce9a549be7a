"""Channel options: what every Meshgate connection agrees on about sizes, keepalive and retries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import grpc

from meshgate.rpc.call import compression

MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
_RETRY_BYTES: Final = 1024 * 1024
"""The most of a request that is kept so that it can be sent again; larger ones are not retried."""

EOF: Final[Any] = grpc.aio.EOF
"""The value that reading a stream gives at its end."""

Options = tuple[tuple[str, Any], ...]

UNUSED: Final[Options] = (("grpc.enable_channelz", 0),)
"""Switches off work of gRPC for each call that is not used: its channelz service is not served."""
DIRECT: Final[Options] = (("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", ""))
"""Use no proxy, even if grpc_proxy, https_proxy, http_proxy or GRPC_ADDRESS_HTTP_PROXY is set."""

_RETRY: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
}


def server_name(part: str) -> str:
    """The host name that a part of the mesh alone has in its certificate, unless configuration says otherwise."""
    return f"{part}.meshgate"


def mesh_options(
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    *,
    service_config: Mapping[str, Any] | None = None,
    server_name: str | None = None,
) -> Options:
    """Options of the gateway's channels to services. Nothing is retried unless `service_config` says so.

    `server_name` is what every replica's certificate must name; without it, that is the host of the target, which may
    be a name that several parts have.
    """
    return (
        *UNUSED,
        *DIRECT,
        *compression.OFF,
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", int(service_config is not None)),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        *_balanced(service_config),
        *((("grpc.default_authority", server_name),) if server_name else ()),
    )


def _balanced(service_config: Mapping[str, Any] | None) -> Options:
    if service_config is None:
        return ()
    return (
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.service_config_disable_resolution", 1),  # DNS says where replicas are, and no more than that
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BYTES),
        ("grpc.dns_min_time_between_resolutions_ms", 5_000),
    )


def client_options(max_message_bytes: int = MAX_MESSAGE_BYTES) -> Options:
    """Options of a caller's channel: gRPC's own retries, of UNAVAILABLE alone and throttled, obeying pushback."""
    return (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(_RETRY)),
    )


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, options: Options | None = None, *, part: str | None = None
) -> grpc.aio.Channel:
    """An asyncio channel to another part of the mesh, by default with `mesh_options` that expect `part` there. Without
    credentials it is in the clear: tests only.
    """
    chosen = mesh_options(server_name=part and server_name(part)) if options is None else options
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=chosen)
    return grpc.aio.secure_channel(target, credentials, options=chosen)
