"""How gRPC's poller wakes the event loop: through a pipe that is emptied in one read.

grpc.aio's poller thread writes a byte to a socket for every event and the loop reads one byte each time it is woken,
though it then takes all events there are. So a loop that has taken five events is woken four more times for nothing,
each with a read and a turn of the loop: docs/adr/0102 has the figures. A pipe is also cheaper to write to than a
socket.

This leans on names of grpcio that are not public (that it makes the pair with `socket.socketpair`, and reads with
`recv`); tests/integration/rpc/test_poller_wakeup.py fails where a new grpcio goes another way.
"""

from __future__ import annotations

import os
from typing import Any, Final

from grpc._cython import cygrpc

_MOST: Final = 65_536
"""A pipe holds no more."""


class _End:
    """One end of a pipe, as far as grpcio asks of a socket."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def setblocking(self, flag: bool) -> None:
        os.set_blocking(self._descriptor, flag)

    def recv(self, size: int) -> bytes:
        """All that was written; the caller wants to know only that something was."""
        return os.read(self._descriptor, _MOST)[:size]

    def close(self) -> None:
        os.close(self._descriptor)


class _Pairs:
    """Stands where grpcio looks for the socket module, of which it wants one function."""

    @staticmethod
    def socketpair() -> tuple[_End, _End]:
        read, write = os.pipe()
        return _End(read), _End(write)


def install() -> None:
    """For the pollers that grpc.aio starts from here on: before the first channel or server."""
    module: Any = cygrpc
    module.socket = _Pairs
