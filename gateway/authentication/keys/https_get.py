"""One GET over https, bounded in time, bytes and hosts.

The connection is asyncio's, so that a fetch can be cancelled at any moment and no thread hangs on a slow server. The
answer is read whole, and then the standard library's parser parses it from memory. An HTTP library would follow
redirects, use proxies, keep connections and unpack compressed answers unless each call forbids it; this code can't.
"""

from __future__ import annotations

import asyncio
import io
import ssl
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from gateway.authentication.source import SourceError
from meshgate.runtime.config import ConfigError
from meshgate.runtime.files import bounded_read

_MAX_HEADERS: Final = 32 * 1024
_MAX_CA: Final = 1024 * 1024
_CHUNK: Final = 64 * 1024
_OK: Final = 200


def trust(ca: Path | None, key: str = "issuers.jwks_ca") -> ssl.SSLContext:
    """The TLS context with the CAs in `ca`, or with the system's. Raises ConfigError, which names `key`."""
    try:
        text = None if ca is None else bounded_read.read(ca, _MAX_CA).decode("ascii")
        context = ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"{key}: {ca}: not PEM certificates") from None
    except OSError as error:
        raise ConfigError(f"{key}: {ca}: {error.strerror}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def get(url: str, context: ssl.SSLContext, *, seconds: float, max_bytes: int) -> bytes:
    """The body of a 200 answer to a GET of an https `url`, at most `max_bytes` long and within `seconds`.

    Raises SourceError for anything else, a redirect included: the host itself must answer.
    """
    try:
        async with asyncio.timeout(seconds):
            answer = await _exchange(url, context, _MAX_HEADERS + max_bytes)
        return _body(answer, max_bytes)
    except TimeoutError:
        raise SourceError("timed out") from None
    except ssl.SSLCertVerificationError:
        raise SourceError("its certificate is not acceptable") from None
    except OSError:
        raise SourceError("not reached") from None
    except (HTTPException, ValueError):
        raise SourceError("not an HTTP answer") from None


async def _exchange(url: str, context: ssl.SSLContext, max_bytes: int) -> bytes:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/jwk-set+json, application/json\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: meshgate\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
    try:
        writer.write(request.encode("ascii"))
        return await _read(reader, max_bytes)
    finally:
        writer.transport.abort()  # an orderly TLS shutdown could take as long as the server likes


async def _read(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    answer = bytearray()
    while chunk := await reader.read(_CHUNK):
        answer += chunk
        if len(answer) > max_bytes:
            raise SourceError("the answer is too long")
    return bytes(answer)


def _body(answer: bytes, max_bytes: int) -> bytes:
    response = HTTPResponse(cast("Any", _Received(answer)), method="GET")
    response.begin()
    if response.status != _OK:
        raise SourceError(f"HTTP status {response.status}")
    body = response.read()
    if len(body) > max_bytes:
        raise SourceError(f"longer than {max_bytes} bytes")
    return body


class _Received:
    """A complete answer, as the socket from which HTTPResponse reads."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)
