"""A peer that speaks HTTP/2 (RFC 9113) frame by frame, as no well-behaved one would."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from tests.support.network.mesh import Mesh

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL: Final = struct.pack(">I", 8)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def block(fields: Mapping[str, str]) -> bytes:
    """A header block of literals that are not indexed (RFC 7541 section 6.2.2)."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields.items())


def _string(text: str) -> bytes:
    data = text.encode("latin-1")
    return _integer(len(data)) + data


def _integer(value: int) -> bytes:
    """With a prefix of seven bits (RFC 7541 section 5.1)."""
    if value < 127:
        return bytes((value,))
    value -= 127
    out = bytearray((127,))
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes((*out, value))


def call(path: str, **more: str) -> dict[str, str]:
    """The headers of a gRPC call."""
    usual = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost"}
    return {**usual, "content-type": "application/grpc", "te": "trailers", **more}


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *data: bytes) -> None:
        """Sends these bytes. A connection that is closed meanwhile is no error."""
        try:
            self._writer.write(b"".join(data))
            await self._writer.drain()
        except OSError:
            return

    def abort(self) -> None:
        """Hangs up without a word."""
        self._writer.transport.abort()

    async def begin(self) -> None:
        """Says hello."""
        await self.send(PREFACE, frame(SETTINGS, 0, 0))

    async def close(self) -> None:
        """Leaves without a word."""
        self._writer.transport.abort()

    async def frames(self) -> AsyncIterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each frame, until the other side closes."""
        while True:
            try:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
            except (asyncio.IncompleteReadError, OSError):
                return
            yield head[3], head[4], int.from_bytes(head[5:]), payload

    async def closed(self) -> bytes:
        """Reads until the other side closes, and returns the payload of its last GOAWAY, if it sent one."""
        last = b""
        async for kind, _, _, payload in self.frames():
            if kind == GOAWAY:
                last = payload
        return last


@asynccontextmanager
async def connected(mesh: Mesh, protocol: str = "h2") -> AsyncIterator[Peer]:
    """A connection to the gateway's port, with TLS."""
    context = ssl.create_default_context(cadata=mesh.ca.decode())
    context.set_alpn_protocols([protocol])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", mesh.gateway.port, ssl=context, server_hostname="localhost"
    )
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()
