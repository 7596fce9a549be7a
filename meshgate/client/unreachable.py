"""Targets that gRPC can make nothing of, and why a gateway could not be reached: each one sentence with a remedy."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from meshgate.rpc import targets

_TARGET: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})", re.ASCII)
_ADDRESSES: Final = {"ipv4:": IPv4Address, "ipv6:": IPv6Address}
_SCHEMES: Final = ("dns:", *_ADDRESSES, "unix:", "unix-abstract:")
_MAX_PORT: Final = 65_535
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""In the order in which gRPC asks them."""
_SHAPE: Final = "host:port is required, such as 127.0.0.1:8443"

_SAID: Final[tuple[tuple[str, str], ...]] = (
    (r"HTTP proxy returned", "the proxy does not connect to {target}"),
    (r"Domain name not found|address lookup failed|Name or service", "there is no such host as {target}"),
    (
        r"ostname Verification|not in peer certificate|Peer name",
        "the certificate of {target} is for another host: {gateway}",
    ),
    (r"certificate has expired", "the certificate of {target} has expired"),
    (r"certificate is not yet valid", "the certificate of {target} is not valid yet: are the clocks right?"),
    (r"CERTIFICATE_VERIFY_FAILED", "{target} has no certificate of the CA that --ca or MESHGATE_CA names"),
    (r"missing selected ALPN|http1\.x server|HTTP/2", "{target} speaks TLS, and no HTTP/2 in it: {gateway}"),
    (
        r"WRONG_VERSION_NUMBER|HTTP_REQUEST|Tls handshake failed",
        "{target} does not speak TLS as a gateway does: {gateway}",
    ),
    (r"Socket closed|Connection reset|CERTIFICATE_REQUIRED", "{target} closed the connection: {gateway}"),
    (r"No such file or directory", "there is no socket at {target}; is `make up` running?"),
    (r"", "{target} can't be reached; is `make up` running?"),
)
_GATEWAY: Final = "is it the gateway's port, and not a service's?"


def fault(target: str) -> str:
    """What is wrong with a target, such as a URL or one without a port; empty where gRPC can make something of it."""
    if (scheme := next(filter(target.startswith, _SCHEMES), None)) is not None:
        return "" if _named(scheme, target.removeprefix(scheme)) else _SHAPE
    before, slashes, rest = target.partition("://")
    if slashes and rest:
        return f"leave out {before}://, {_SHAPE}"
    return "" if _is_place(target) else _SHAPE


def _named(scheme: str, rest: str) -> bool:
    """Whether what stands after a scheme of gRPC's names something."""
    if scheme in _ADDRESSES:
        return all(_is_address(scheme, each) for each in rest.split(","))
    authority, slash, name = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "", rest)
    if scheme == "dns:" and authority and not _is_place(authority):
        return False
    return bool((name if slash and scheme == "dns:" else rest).strip("/"))


def _is_address(scheme: str, place: str) -> bool:
    host = place.rpartition(":")[0].strip("[]")
    try:
        _ADDRESSES[scheme](host)
    except ValueError:
        return False
    return _is_place(place)


def _is_place(place: str) -> bool:
    found = _TARGET.fullmatch(place)
    return found is not None and 0 < int(found["port"]) <= _MAX_PORT


def sentence(said: str, target: str) -> str:
    """What happened, where gRPC `said` so of an attempt to connect to `target`."""
    meant = next(sentence for pattern, sentence in _SAID if re.search(pattern, said))
    told = meant.format(target=target, gateway=_GATEWAY)
    name = None if targets.is_local(target) else next((name for name in _PROXIES if os.environ.get(name)), None)
    return told if name is None else f"{told} ({name} names a proxy, asked for what no_proxy does not name)"
