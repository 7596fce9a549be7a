"""A server of key sets over real TLS: what it answers, and how badly, is for the test to say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import certs
from tests.support.fixtures import tokens


def ok(keys: Iterable[Mapping[str, Any]]) -> bytes:
    """A good answer."""
    body = tokens.key_set(keys)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class JwksServer:
    """Answers each request with what `answers` has for its path, else with `answer`; None leaves it unanswered."""

    def __init__(self, home: Path) -> None:
        self.answer: bytes | None = b""
        self.answers: dict[str, bytes | None] = {}
        self.requests: list[bytes] = []
        self.port = 0
        self.ca = home / "certs" / "ca.pem"
        self._home = home
        self._served = asyncio.Condition()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/keys?tenant=all"

    async def start(self, host: str = "127.0.0.1") -> None:
        """Listens, on the same port where it did before."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        folder = self._home / "certs"
        context.load_cert_chain(folder / "gateway.pem", folder / "gateway-key.pem")
        self._server = await asyncio.start_server(self._serve, host, self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def served(self, count: int) -> None:
        """Waits until so many requests have come."""
        async with asyncio.timeout(20), self._served:
            await self._served.wait_for(lambda: len(self.requests) >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        async with self._served:
            self._served.notify_all()
        path = self.requests[-1].split(b" ")[1].decode()
        answer = self.answers.get(path, self.answer)
        if answer is None:
            await reader.read()  # until the other side gives up
        else:
            writer.write(answer)
        writer.close()


@asynccontextmanager
async def jwks_server(home: Path) -> AsyncIterator[JwksServer]:
    """One that listens on localhost with a certificate of the mesh's CA."""
    certs.ensure(home, ["gateway"])
    made = JwksServer(home)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
