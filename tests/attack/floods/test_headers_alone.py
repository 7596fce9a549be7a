"""Peers that send headers and then not what should follow, or far more of them: ended by the edge itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.network.bystander import GENERATE, SECONDS, attacked, reasons, served, until
from tests.support.network.http2_peer import DATA, END_HEADERS, END_STREAM, HEADERS, block, call, connected, frame

SHORT = 1.0


async def test_a_lone_message_that_never_comes(tmp_path: Path) -> None:
    """Headers and no more, as a raw peer: nothing but our own bound ends it."""
    async with attacked(tmp_path, first_message_seconds=SHORT) as mesh, connected(mesh) as peer:
        await peer.begin()
        headers = block(call(GENERATE, **dict(mesh.auth())))
        await peer.send(frame(HEADERS, END_HEADERS, 1, headers))
        await until(lambda: reasons(mesh) == ["SILENT_WRITER"])
        await served(mesh)


async def test_a_message_that_stays_half(tmp_path: Path) -> None:
    async with attacked(tmp_path, first_message_seconds=SHORT) as mesh, connected(mesh) as peer:
        await peer.begin()
        headers = block(call(GENERATE, **dict(mesh.auth())))
        half = b"\x00\x00\x00\x00\x10" + b"\x0a\x0e"  # sixteen bytes announced, two sent
        await peer.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, 0, 1, half))
        await until(lambda: reasons(mesh) == ["SILENT_WRITER"])


async def test_strangers_are_not_waited_for(tmp_path: Path) -> None:
    """Without a token a call ends by its headers alone: what would follow is never read."""
    async with attacked(tmp_path) as mesh, connected(mesh) as peer:
        await peer.begin()
        for stream in range(1, 21, 2):
            await peer.send(frame(HEADERS, END_HEADERS, stream, block(call(GENERATE))))
        await until(lambda: reasons(mesh) == ["TOKEN_MISSING"] * 10)


async def test_metadata_of_a_peer_that_does_not_heed_our_settings(tmp_path: Path) -> None:
    async with attacked(tmp_path, max_metadata_bytes=10_000) as mesh, connected(mesh) as peer, asyncio.timeout(SECONDS):
        await peer.begin()
        headers = block(call(GENERATE, **dict(mesh.auth()), **{"x-note": "n" * 11_000}))
        await peer.send(frame(HEADERS, END_HEADERS, 1, headers))
        async for kind, flags, stream, _ in peer.frames():
            if stream == 1:
                assert (kind, flags & END_STREAM) == (HEADERS, END_STREAM)  # trailers alone: a refusal
                break
        else:
            raise AssertionError("no answer")
        assert reasons(mesh) == ["TOKEN_MISSING"]  # the one it sent is not looked at
