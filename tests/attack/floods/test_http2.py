"""HTTP/2 as no client would speak it: the connection is closed, and those of others are not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.network.bystander import GENERATE, SECONDS, attacked, in_flight, served, until
from tests.support.network.http2_peer import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    call,
    connected,
    frame,
)
from tests.support.network.mesh import Mesh

ENHANCE_YOUR_CALM = 11


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with attacked(tmp_path, handshake_seconds=1, max_streams_per_connection=20) as made:
        yield made


async def test_pings(mesh: Mesh) -> None:
    async with connected(mesh) as peer, asyncio.timeout(SECONDS):
        await peer.begin()
        await peer.send(*(frame(PING, 0, 0, struct.pack(">Q", number)) for number in range(20)))
        goaway = await peer.closed()
    assert struct.unpack(">II", goaway[:8])[1] == ENHANCE_YOUR_CALM
    assert goaway[8:] == b"too_many_pings"


async def test_calls_reset_as_soon_as_they_begin(mesh: Mesh) -> None:
    """Rapid reset (CVE-2023-44487): far more calls than may be at once, none of them at once."""
    headers = block(call(GENERATE))
    async with connected(mesh) as peer:
        await peer.begin()
        for first in range(1, 4001, 200):
            burst = [
                frame(HEADERS, END_HEADERS, stream, headers) + frame(RST_STREAM, 0, stream, CANCEL)
                for stream in range(first, first + 200, 2)
            ]
            await peer.send(*burst)
        await served(mesh)
        await until(lambda: in_flight(mesh) == 0)


async def test_more_streams_than_allowed(mesh: Mesh) -> None:
    headers = block(call(GENERATE, **dict(mesh.auth())))
    async with connected(mesh) as peer, asyncio.timeout(SECONDS):
        await peer.begin()
        await peer.send(*(frame(HEADERS, END_HEADERS, stream, headers) for stream in range(1, 401, 2)))
        await served(mesh)
        assert in_flight(mesh) <= 20
        refused = 0
        async for kind, _, _, _ in peer.frames():
            refused += kind in {RST_STREAM, GOAWAY}
            if refused:
                break
    assert refused


FLOODS = {
    "settings": [frame(SETTINGS, 0, 0)] * 20_000,
    "headers without end": [
        frame(HEADERS, 0, 1, block(call(GENERATE))),
        *[frame(CONTINUATION, 0, 1, block({"x-filler": "x" * 1000}))] * 500,
    ],
    "headers that are empty and without end": [
        frame(HEADERS, 0, 1, block(call(GENERATE))),
        *[frame(CONTINUATION, 0, 1)] * 20_000,
    ],
    "data that is empty": [
        frame(HEADERS, END_HEADERS, 1, block(call(GENERATE))),
        *[frame(DATA, 0, 1)] * 20_000,
    ],
    "windows that grow too large": [frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1))] * 10,
    "a window that does not grow": [frame(WINDOW_UPDATE, 0, 0, bytes(4))],
    "data of no stream": [frame(DATA, 0, 99, b"x" * 1000)] * 100,
    "a frame of an unknown kind": [frame(77, 255, 3, b"x" * 100)] * 1000,
    "a frame that is too long": [frame(HEADERS, END_HEADERS, 1, b"x" * 1_000_000)],
    "a header block that is none": [frame(HEADERS, END_HEADERS, 1, b"\xff" * 100)],
    "an even stream": [frame(HEADERS, END_HEADERS, 2, block(call(GENERATE)))],
    "a header table without bound": [
        frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 2**32 - 1)),
        frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\xff\xff\xff\x07" + block(call(GENERATE))),
    ],
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood(mesh: Mesh, name: str) -> None:
    async with connected(mesh) as peer:
        await peer.begin()
        await peer.send(*FLOODS[name])
        await served(mesh)
    await until(lambda: in_flight(mesh) == 0)


GARBAGE = {
    "nothing": b"",
    "http/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a preface": PREFACE[:10],
    "a preface and no settings": PREFACE,
    "zeros": bytes(10_000),
    "noise": os.urandom(10_000),
    "a preface and noise": PREFACE + os.urandom(10_000),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_what_is_no_http2_is_closed(mesh: Mesh, name: str) -> None:
    async with connected(mesh) as peer, asyncio.timeout(SECONDS):
        await peer.send(GARBAGE[name])
        await served(mesh)
        await peer.closed()


async def test_a_protocol_that_is_not_h2(mesh: Mesh) -> None:
    with contextlib.suppress(ssl.SSLError, ConnectionError):  # it may end in the handshake, or right after
        async with connected(mesh, "http/1.1") as peer:
            await peer.begin()
            await asyncio.wait_for(peer.closed(), SECONDS)


@pytest.mark.parametrize("name", GARBAGE)
async def test_what_is_no_tls_is_closed(mesh: Mesh, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.gateway.port)
    async with asyncio.timeout(SECONDS):
        writer.write(GARBAGE[name])
        await served(mesh)
        try:
            await reader.read()
        except OSError:
            return  # a reset closes as well
        finally:
            writer.transport.abort()
