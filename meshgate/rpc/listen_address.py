"""Addresses that servers listen on: what they look like, and why one can't be used."""

from __future__ import annotations

import argparse
import errno
import socket
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator

_MAX_PORT: Final = 65535
_IN_USE: Final = "another process uses it; stop that one, or choose another port"
_PATH_IN_USE: Final = "something else is there, or another process uses it; choose another path"
_UNIX: Final = "unix:"
_SHAPES: Final = "must be host:port, [IPv6]:port or unix:/path"


def _listen(value: str) -> str:
    if not value.startswith(_UNIX):
        host_and_port(value)
    elif len(value) <= len(_UNIX):
        raise ValueError(_SHAPES)
    return value


def flag(value: str) -> str:
    """The same for a command line: its parser says what is wrong. Raises ArgumentTypeError."""
    try:
        return _listen(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def tcp_flag(value: str) -> str:
    """The same of an address that is no Unix socket."""
    try:
        return _listen_tcp(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _listen_tcp(value: str) -> str:
    try:
        host_and_port(value)
    except ValueError:
        raise ValueError("must be host:port or [IPv6]:port") from None
    return value


ListenTcp = Annotated[str, AfterValidator(_listen_tcp)]
"""The same without Unix sockets."""
Listen = Annotated[str, AfterValidator(_listen)]
"""Where gRPC listens: host:port (port 0 is any that is free), [IPv6]:port or unix:/path."""


def host_and_port(listen: str) -> tuple[str, int]:
    """The two parts of host:port; an IPv6 address is in brackets. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    bare = host.startswith("[") == host.endswith("]") and (":" not in host or host.startswith("["))
    if not colon or not host or not bare or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError(_SHAPES)
    return host.removeprefix("[").removesuffix("]"), int(port)


def unusable(listen: str) -> str:
    """Why nothing can listen on `listen`, with the remedy, in words for the operator."""
    return f"can't listen on {listen}: {_tried(listen)}"


def _tried(listen: str) -> str:
    """The system's error on binding to it, and the remedy."""
    unix = listen.startswith(_UNIX)
    try:
        if unix:
            _bind_unix(Path(listen.removeprefix(_UNIX)))
        else:
            _bind(*host_and_port(listen))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _PATH_IN_USE if unix else _IN_USE
        return f"{(error.strerror or str(error) or 'it cannot be bound').lower()}; choose another address"
    return _PATH_IN_USE if unix else _IN_USE  # by one that shares it, or only a moment ago


def _bind_unix(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as tried:
        tried.bind(str(path))
    path.unlink(missing_ok=True)


def _bind(host: str, port: int) -> None:
    for family, kind, protocol, _, found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(found)
