"""Methods that there are not, under names made to confuse whoever matches, logs or counts them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.metrics.call_metrics import UNKNOWN
from meshgate import errors
from tests.support.network.bystander import GENERATE, HELLO, SECONDS, attacked, metric, until
from tests.support.network.http2_peer import END_HEADERS, END_STREAM, HEADERS, block, call, connected, frame
from tests.support.network.mesh import Mesh, refused

ODD = [
    "/meshgate.v1.GenerationService/generate",
    "/meshgate.v1.GenerationService/Generate/",
    "//meshgate.v1.GenerationService/Generate",
    "/meshgate.v1.GenerationService/*",
    "/meshgate.v1.GenerationService/Generate%00",
    "/meshgate.v1.GenerationService/../GenerationService/Generate",
    "/meshgate.v1.GenerationService",
    "/",
    "/*/*",
    "/[a-z]/x",
    '/"},{"event":"ended"/x',
    "/a/" + "b" * 5000,
    "/grpc.health.v1.Health/Kill",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with attacked(tmp_path) as made:
        yield made


async def test_with_a_token(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        for path in ODD:
            message = HELLO.SerializeToString()
            error = await refused(channel.unary_unary(path)(message, metadata=mesh.auth(), timeout=SECONDS))
            assert (type(error), error.reason) == (errors.Unimplemented, "METHOD_UNKNOWN"), path
            record = mesh.record_of(error)
            assert (record["event"], record["subject"]) == ("refused", "alice")
    assert metric(mesh, "meshgate_gateway_calls_total")[UNKNOWN, "", "UNIMPLEMENTED"] == len(ODD)


async def test_without_one_nobody_learns_what_there_is(mesh: Mesh) -> None:
    async with mesh.channel() as channel:
        for path in (*ODD, GENERATE):
            error = await refused(channel.unary_unary(path)(b"", timeout=SECONDS))
            assert (type(error), error.reason) == (errors.Unauthenticated, "TOKEN_MISSING"), path


RAW = ["", "no-slash", "/\x80\xff/x", "/a b/c", "/a\tb/c", "*", "http://other.example/x"]


@pytest.mark.parametrize("path", RAW)
async def test_what_no_client_would_send(mesh: Mesh, path: str) -> None:
    async with connected(mesh) as peer:
        await peer.begin()
        headers = block(call(path, **dict(mesh.auth())))
        await peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers))
        async for _, _, stream, _ in peer.frames():
            if stream == 1:
                break
        else:
            raise AssertionError("no answer")


@pytest.mark.parametrize("method", ["GET", "CONNECT", "DELETE", ""])
async def test_http_that_is_no_grpc(mesh: Mesh, method: str) -> None:
    async with connected(mesh) as peer:
        await peer.begin()
        headers = block({**call(GENERATE, **dict(mesh.auth())), ":method": method})
        await peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers))
        async for _, _, stream, _ in peer.frames():
            if stream == 1:
                break
        else:
            raise AssertionError("no answer")
    await until(lambda: not [record for record in mesh.records() if record.get("status") == "OK"])
