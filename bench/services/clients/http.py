"""As much of an HTTP/1.1 client as it takes to post JSON over and over: a general one would take more of the processor
than some servers do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

_LIMIT: Final = 1 << 22
"""Bytes of a line."""


class HttpError(Exception):
    """An answer that is not 200."""


class Connection:
    """One to a port of this machine, kept open. One request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer. Raises HttpError or OSError."""
        return b"".join([part async for part in self.stream(path, body)])

    async def get(self, path: str) -> bytes:
        """Likewise."""
        return b"".join(
            [part async for part in self._answer(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())]
        )

    async def stream(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        """The parts of the answer as they come."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        async for part in self._answer(head.encode() + body):
            yield part

    async def close(self) -> None:
        """Ends it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _answer(self, request: bytes) -> AsyncIterator[bytes]:
        reader, head = await self._send(request)
        status, headers = _head(head)
        if headers.get("transfer-encoding") == "chunked":
            parts = _chunks(reader)
        else:
            parts = _whole(reader, int(headers["content-length"]))
        async for part in parts:
            if status != 200:
                raise HttpError(f"{status}: {part[:200].decode(errors='replace')}")
            yield part

    async def _send(self, request: bytes) -> tuple[asyncio.StreamReader, bytes]:
        """The head of the answer. A connection that the server closed while nobody asked is opened anew."""
        reused = self._streams is not None
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        reader, writer = self._streams
        try:
            writer.write(request)
            return reader, await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.close()
            if not reused:
                raise
        return await self._send(request)


async def _whole(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    yield await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        part = await reader.readexactly(size + 2)
        yield part[:-2]
    await reader.readuntil(b"\r\n")


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status, and the headers by their names in small letters."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(first.split(" ")[1]), headers


def events(part: bytes) -> list[Any]:
    """The JSON of server-sent events that came together; that they are done is none."""
    lines = (line.removeprefix(b"data:").strip() for line in part.split(b"\n") if line.startswith(b"data:"))
    return [json.loads(line) for line in lines if line != b"[DONE]"]
