"""No port inflates what it is sent: whoever sends it, to whatever method, in whatever coding."""

from __future__ import annotations

import asyncio
import gzip
import re
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from gateway.routes import PUBLIC_ROUTES
from meshgate import errors
from meshgate.rpc import channel, status, tls
from meshgate.rpc.health import PATHS
from meshgate.rpc.private import stream_status
from meshgate.v1 import generation_pb2
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import SECONDS, attacked
from tests.support.network.http2_peer import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    SETTINGS,
    block,
    call,
    connected,
    frame,
)
from tests.support.network.mesh import Mesh

REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CODINGS: Final = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
UNKNOWN_FIELD: Final = b"\x7a\x80\x80\x80\x06" + bytes(12 << 20)
"""Field 15 of length 12 MiB: valid for every message of the contract, and 12 KB once it is compressed."""


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with attacked(tmp_path, reflection=True) as made:
        yield made


async def told(call: Any) -> errors.MeshError | None:
    """What a call of any arity ends with."""
    try:
        async for _ in stream_status.preserve_status(call):  # or a write that fails would hide why
            pass
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error)
    return None


def ask(opened: Any, path: str, message: bytes, coding: str, metadata: Any = ()) -> Any:
    options = {"metadata": metadata, "timeout": SECONDS, "compression": CODINGS[coding]}
    return opened.stream_stream(path)(iter([message]), **options)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_bomb_to_any_method_is_refused_unopened(mesh: Mesh, coding: str) -> None:
    async with mesh.channel() as opened:
        for path in (*PUBLIC_ROUTES, *PATHS, REFLECTION):
            anonymous = await told(ask(opened, path, UNKNOWN_FIELD, coding))
            known = await told(ask(opened, path, UNKNOWN_FIELD, coding, mesh.auth()))
            if path in PUBLIC_ROUTES:
                assert isinstance(anonymous, errors.Unauthenticated), path
            for error in {anonymous, known} if path not in PUBLIC_ROUTES else {known}:
                assert error is not None, path
                refused = error.reason in ("COMPRESSED", "MESSAGE_TOO_LARGE", "MALFORMED")
                assert refused or isinstance(error, errors.PermissionDenied), (path, error.reason)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_bomb_behind_a_good_message(mesh: Mesh, coding: str) -> None:
    good = b"\x0a\x03\x0a\x01a"  # to embed one letter
    async with mesh.channel() as opened:
        stream = opened.stream_stream("/meshgate.v1.EmbeddingService/EmbedStream")(
            iter([good, UNKNOWN_FIELD]), metadata=mesh.auth(), timeout=SECONDS, compression=CODINGS[coding]
        )
        error = await told(stream)
        assert error is not None
        assert error.reason in ("COMPRESSED", "MALFORMED")


@pytest.mark.parametrize("path", [*PATHS, REFLECTION])
async def test_a_large_request_without_a_token_is_refused(mesh: Mesh, path: str) -> None:
    async with mesh.channel() as opened:
        for message in (UNKNOWN_FIELD, UNKNOWN_FIELD[:2000]):
            error = await told(opened.stream_stream(path)(iter([message]), timeout=SECONDS))
            assert (type(error), error and error.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")


@pytest.mark.parametrize("reason_of", ["record", "caller"])
async def test_an_authenticated_caller_is_told_why_and_it_is_on_record(mesh: Mesh, reason_of: str) -> None:
    hello = generation_pb2.GenerateRequest(prompt="x" * 10_000).SerializeToString()
    async with mesh.channel() as opened:
        error = await told(ask(opened, "/meshgate.v1.GenerationService/Generate", hello, "gzip", mesh.auth()))
    assert error is not None
    found = error.reason if reason_of == "caller" else mesh.record_of(error)["reason"]
    assert found == "COMPRESSED"


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_service_does_not_inflate_either(tmp_path: Path, coding: str) -> None:
    meshes.prepare(tmp_path)
    async with meshes.serving(tmp_path, "generation", ScriptedApplication()) as server:
        credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
        options = (*channel.client_options(), ("grpc.default_authority", channel.server_name("generation")))
        async with channel.open_channel(f"127.0.0.1:{server.port}", credentials, options) as opened:
            for path in ("/meshgate.v1.GenerationService/Generate", "/meshgate.v1.GenerationService/GenerateStream"):
                message = generation_pb2.GenerateRequest(prompt="x" * 10_000).SerializeToString()
                error = await told(ask(opened, path, message, coding))
                assert error is not None
                assert error.reason in ("COMPRESSED", "MALFORMED")
            for path in PATHS:
                error = await told(ask(opened, path, UNKNOWN_FIELD[: 7 << 20], coding))
                assert error is not None
                assert error.reason in ("COMPRESSED", "MALFORMED", "MESSAGE_TOO_LARGE")


GZIP, DEFLATE = gzip.compress(bytes(1 << 20)), zlib.compress(bytes(1 << 20))
ODD: Final = [
    ("gzip", 1, GZIP),
    ("deflate", 1, DEFLATE),
    ("identity", 1, GZIP),
    ("", 1, GZIP),
    ("snappy", 1, GZIP),
    ("GZIP", 1, GZIP),
    ("gzip, gzip", 1, GZIP),
    ("gzip", 1, b"junk"),
    ("gzip", 0, GZIP),
    ("gzip", 1, GZIP + GZIP),
]


@pytest.mark.parametrize("path", [PATHS[0], PATHS[2], "/meshgate.v1.GenerationService/Generate"])
@pytest.mark.parametrize(("coding", "flag", "body"), ODD)
async def test_codings_that_no_client_sends(mesh: Mesh, path: str, coding: str, flag: int, body: bytes) -> None:
    headers = call(path, **dict(mesh.auth()), **({"grpc-encoding": coding} if coding else {}))
    message = struct.pack(">BI", flag, len(body)) + body
    async with connected(mesh) as peer, asyncio.timeout(SECONDS):
        await peer.begin()
        await peer.send(frame(SETTINGS, ACK, 0), frame(HEADERS, END_HEADERS, 1, block(headers)))
        await peer.send(frame(DATA, END_STREAM, 1, message))
        said = b""
        async for kind, flags, stream, payload in peer.frames():
            said += payload if (kind, stream) == (HEADERS, 1) else b""
            if stream == 1 and flags & END_STREAM:
                break
    code = re.search(rb"grpc-status[\x01\x02](\d+)", said)
    assert code is not None, said
    assert int(code[1]) in (3, 12, 13), said  # INVALID_ARGUMENT, UNIMPLEMENTED, INTERNAL
