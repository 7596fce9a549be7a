"""A hostile or broken server of keys: whatever it answers, the keys that are known stay and the time is bounded."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.authentication.keys import https_get, keyset
from gateway.authentication.source import SourceError
from tests.support.fixtures import tokens
from tests.support.network import jwks_server
from tests.support.network.jwks_server import JwksServer, ok

EC = tokens.jwk(tokens.EC_KEY, kid="ec")
MAX = 64 * 1024


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[JwksServer]:
    async with jwks_server.jwks_server(tmp_path) as made:
        yield made


async def get(server: JwksServer, seconds: float = 10.0, context: ssl.SSLContext | None = None) -> bytes:
    return await https_get.get(server.url, context or https_get.trust(server.ca), seconds=seconds, max_bytes=MAX)


async def why(server: JwksServer, seconds: float = 10.0, context: ssl.SSLContext | None = None) -> str:
    with pytest.raises(SourceError) as caught:
        keyset.parse(await get(server, seconds, context))
    return str(caught.value)


async def test_a_good_answer_by_length_by_chunks_and_by_its_end(server: JwksServer) -> None:
    body = tokens.key_set([EC])
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for answer in (
        ok([EC]),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ):
        server.answer = answer
        assert await get(server) == body


@pytest.mark.parametrize("status", [201, 204, 301, 302, 303, 307, 308, 304, 401, 404, 500, 503])
async def test_nothing_but_200_and_no_redirect_is_followed(server: JwksServer, status: int) -> None:
    body = tokens.key_set([EC])
    head = f"HTTP/1.1 {status} X\r\nLocation: {server.url}\r\nContent-Length: {len(body)}\r\n\r\n"
    server.answer = head.encode() + body
    assert await why(server) == f"HTTP status {status}"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "not reached"),
        (b"\x00" * 1000, "not an HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 OK\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n{}", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n{}", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + tokens.key_set([EC]), "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n<html>", "not JSON"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n{}", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (MAX + 1), f"longer than {MAX} bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * MAX), "the answer is too long"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (8 * 1024 * 1024), "the answer is too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00" + bytes(100), "not JSON"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 50_000, "not JSON"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + tokens.key_set([EC])[:-1], "not JSON"),
        (
            b"HTTP/1.1 200 OK\r\n\r\n" + tokens.key_set([{**EC, "x": "AA"}] * 2),
            "none of its keys can be used: public keys for ES256, EdDSA, RS256 or PS256 are; "
            "key 0 (kid 'ec'): its members are not a public key",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + tokens.key_set([{}] * 257), "more than 256 keys"),
    ],
)
async def test_an_answer_that_is_none(server: JwksServer, answer: bytes, told: str) -> None:
    server.answer = answer
    assert await why(server) == told


async def test_a_server_that_says_nothing_costs_the_timeout_and_no_more(server: JwksServer) -> None:
    server.answer = None
    before = time.monotonic()
    assert await why(server, seconds=0.3) == "timed out"
    assert 0.2 < time.monotonic() - before < 5


async def test_a_server_that_nobody_we_trust_vouches_for_gets_no_request(server: JwksServer) -> None:
    server.answer = ok([EC])
    assert await why(server, context=https_get.trust(None)) == "its certificate is not acceptable"
    assert server.requests == []


async def test_a_server_with_another_hosts_certificate_gets_no_request(server: JwksServer) -> None:
    await server.stop()
    await server.start("127.0.0.2")
    with pytest.raises(SourceError, match="certificate is not acceptable"):
        await https_get.get(f"https://127.0.0.2:{server.port}/", https_get.trust(server.ca), seconds=10, max_bytes=MAX)
    assert server.requests == []


async def test_nobody_there(server: JwksServer) -> None:
    await server.stop()
    assert await why(server) == "not reached"
