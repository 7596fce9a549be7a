"""Addresses as gRPC writes them: whether a target is on this machine, and where a listening server is reached.

gRPC accepts `host:port`, `[address]:port`, `unix:path`, `unix-abstract:name`, and each of these behind a scheme, as in
`dns:///localhost:8443` or `ipv4:127.0.0.1:1,127.0.0.1:2`.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import AfterValidator

_SCHEME: Final = re.compile(r"(?:dns|ipv4|ipv6|passthrough):(?://[^/]*/)?", re.IGNORECASE)
_UNIX: Final = ("unix:", "unix-abstract:")
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[A-Za-z0-9_.-]+):([0-9]{1,5})", re.ASCII)
_MAX_PORT: Final = 65_535
_WHERE: Final = "must be host:port, dns:///name:port, ipv4:address:port,... or unix:/path"
_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK6: Final = "[::1]"


def check(value: str) -> str:
    """The target as it is. Raises ValueError for what gRPC would take and never reach."""
    if value.startswith(_UNIX):
        well = value.partition(":")[2] not in ("", "//")
    else:
        well = all(map(_has_port, _SCHEME.sub("", value, count=1).split(",")))
    if not well or not value.isprintable() or " " in value:
        raise ValueError(_WHERE)
    return value


def _has_port(address: str) -> bool:
    """Without one gRPC takes 443, where no service of a mesh listens."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and 1 <= int(found.group(1)) <= _MAX_PORT


Target = Annotated[str, AfterValidator(check)]
"""Where a server is reached, as gRPC takes it."""


def is_local(target: str) -> bool:
    """Whether every address of a gRPC target is on this machine's loopback interface or is a Unix socket."""
    if target.startswith(_UNIX):
        return True
    return all(_is_loopback(_host(part)) for part in _plain(target).split(","))


def reachable(listen: str) -> str:
    """The target at which this machine reaches a server that listens on `listen`.

    A server that listens on every interface is reached on the loopback interface, any other at its own address.
    """
    if listen.startswith(_UNIX):
        return listen
    plain = _plain(listen)
    host, port = _host(plain), plain.rpartition(":")[2]
    if (address := _address(host)) is None:
        return f"{host or _LOOPBACK}:{port}"
    if not address.is_unspecified:
        return plain
    return f"{_loopback(address.version)}:{port}"


def _plain(target: str) -> str:
    """The target without its scheme and authority."""
    return unquote(_SCHEME.sub("", target, count=1))


def _host(address: str) -> str:
    """The host of `host:port`, `[host]:port`, a bare host, or a bare IPv6 address."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _loopback(version: int) -> str:
    """gRPC listens on IPv4 in place of `[::]` where the machine has no IPv6."""
    if version == 4:
        return _LOOPBACK
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return _LOOPBACK
    return _LOOPBACK6
