"""A port that workers share (SO_REUSEPORT, socket(7)), held by their supervisor so that it is theirs alone.

The kernel gives each new connection to one of the sockets that listen on the port. It lets any process of the same user
join them, so a second gateway on a busy port would silently take half of the calls. So the supervisor has a socket of
its own on the port that never takes a connection. It binds alone, which fails if another process has the port, and only
then lets others join. It also keeps the port while no worker listens.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from meshgate.rpc.listen_address import unusable
from meshgate.runtime.config import ConfigError

_WORKERS: Final = "server.listen: workers share a host:port"


class SharedPort:
    """A held port. `listen` is where workers listen: the same address, with the port that 0 became."""

    def __init__(self, listen: str) -> None:
        """Raises ConfigError for an address that can't be shared or a port that another process has."""
        host, number = _parse(listen)
        self._sockets: list[socket.socket] = []
        try:
            for family, address in _addresses(host):
                number = self._hold(family, address, number)
        except OSError as error:
            self.close()
            raise ConfigError(f"server.listen: {unusable(listen)}") from error
        self.listen = f"{host}:{number}"

    def close(self) -> None:
        """Lets go of it."""
        for held in self._sockets:
            held.close()

    def _hold(self, family: socket.AddressFamily, address: str, number: int) -> int:
        held = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(held)
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind_alone(held, address, number)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return int(held.getsockname()[1])


def _bind_alone(held: socket.socket, address: str, number: int) -> None:
    """Binds a port that no other socket has, although connections of a former server may linger there (SO_REUSEADDR).

    Only listening finds out the others that have SO_REUSEADDR too; `shutdown` ends it, and the port stays bound.
    """
    if not number:  # the kernel chooses a free one
        held.bind((address, 0))
        return
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, number))
    held.listen(1)
    held.shutdown(socket.SHUT_RD)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _parse(listen: str) -> tuple[str, int]:
    if sys.platform != "linux":
        raise ConfigError("workers: more than one needs Linux, where the kernel balances a shared port")
    host, colon, number = listen.rpartition(":")
    if not colon or not number.isdecimal() or "/" in listen:
        raise ConfigError(f"{_WORKERS}, and {listen} is none")
    return host, int(number)


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """The addresses of a host, as gRPC finds them. Raises OSError."""
    found = socket.getaddrinfo(host.strip("[]") or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
