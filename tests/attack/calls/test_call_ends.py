"""However a call ends, its audit record, the metrics and what its caller was told agree."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.commands import dev_issuer
from gateway.routes import PUBLIC_ROUTES
from meshgate.rpc import status
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import Generation, ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import GENERATE, edge, in_flight, lines, metric, served, until
from tests.support.network.http2_peer import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Peer,
    block,
    call,
    connected,
    frame,
)
from tests.support.network.mesh import Mesh

SHORT = 0.2
End = tuple[str, str]
MALFORMED = ("INVALID_ARGUMENT", "MALFORMED")
CANCELLED = ("CANCELLED", "CANCELLED")
LATE = ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
SILENT = ("DEADLINE_EXCEEDED", "SILENT_WRITER")
SLOW = ("DEADLINE_EXCEEDED", "SLOW_READER")
DRAINING = ("UNAVAILABLE", "DRAINING")
TOO_LARGE = ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")
OK = ("OK", "")


class Holding(ScriptedApplication):
    """Unary calls stay until they are cancelled, streams until they are told to go on."""

    def register(self, server: grpc.aio.Server) -> Any:
        names = super().register(server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(_Holding(self), server)
        return names


class _Holding(Generation):
    async def Generate(self, request: Any, context: Any) -> Any:
        if request.prompt == "hello":
            return await super().Generate(request, context)
        self._application.streaming.set()
        await self._application.go_on.wait()
        return generation_pb2.GenerateResponse()

    async def GenerateStream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while request.request.prompt == "a torrent":
            yield generation_pb2.GenerateStreamResponse(deltas=[generation_pb2.CandidateDelta(text="x" * 10_000)])
        async for reply in super().GenerateStream(request, context):
            yield reply


@asynccontextmanager
async def mesh(home: Path, **changes: Any) -> AsyncIterator[Mesh]:
    bounds = {"max_message_bytes": 10_000, "first_message_seconds": 5.0, **changes.pop("bounds", {})}
    meshes.prepare(home)
    applications = {"generation": Holding(), "embedding": ScriptedApplication()}
    async with meshes.mesh(home, applications, server=edge(home, **bounds), **changes) as made:
        yield made


def recorded(mesh: Mesh) -> Counter[End]:
    """How calls ended by their records, sums included."""
    counts: Counter[End] = Counter()
    codes = {"CONCURRENCY_LIMITED": "RESOURCE_EXHAUSTED", "TOKEN_MISSING": "UNAUTHENTICATED"}
    for record in lines(mesh):
        if record.get("event") in ("refused", "ended"):
            counts[record["status"], record.get("reason", "")] += 1
        elif record.get("event") == "refusals":
            counts[codes[record["reason"]], record["reason"]] += record["count"]
    return counts


def measured(mesh: Mesh) -> tuple[Counter[str], Counter[str]]:
    """How calls ended by the metrics: by code, and by reason."""
    codes, reasons = Counter[str](), Counter[str]()
    for labels, value in metric(mesh, "meshgate_gateway_calls_total").items():
        codes[labels[-1]] += int(value)
    for name in ("refused", "failed"):
        for (reason,), value in metric(mesh, f"meshgate_gateway_{name}_calls_total").items():
            reasons[reason] += int(value)
    return codes, reasons


async def agreed(mesh: Mesh, told: Counter[End]) -> None:
    """Records and metrics say what callers were told, `told`, and of no other call."""
    await until(lambda: in_flight(mesh) == 0 and recorded(mesh).total() == told.total())
    assert recorded(mesh) == told
    codes, reasons = Counter[str](), Counter[str]()
    for (code, reason), count in told.items():
        codes[code] += count
        if reason:
            reasons[reason] += count
    assert measured(mesh) == (codes, reasons)


async def told_by(awaited: Any) -> End:
    """What a caller of the library is told."""
    try:
        await awaited
    except grpc.aio.AioRpcError as error:
        code = error.code().name
        return code, status.from_rpc_error(error).reason if status.has_details(error) else code
    except asyncio.CancelledError:
        return CANCELLED
    return OK


# As raw peers: what is told them, if anybody is there, only its end can be seen of.


def head(mesh: Mesh, path: str, **more: str) -> bytes:
    return block(call(path, **dict(mesh.auth()), **more))


async def resets(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)), frame(RST_STREAM, 0, 1, CANCEL))


async def resets_later(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)))
    await until(lambda: in_flight(mesh) == 1)
    await peer.send(frame(RST_STREAM, 0, 1, CANCEL))


async def resets_in_a_message(mesh: Mesh, peer: Peer, path: str) -> None:
    half = frame(DATA, 0, 1, b"\x00\x00\x00\x00\x10\x0a\x0e")
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)), half, frame(RST_STREAM, 0, 1, CANCEL))


async def resets_long_before_its_deadline(mesh: Mesh, peer: Peer, path: str) -> None:
    headers = head(mesh, path, **{"grpc-timeout": "5S"})
    await peer.send(frame(HEADERS, END_HEADERS, 1, headers), frame(RST_STREAM, 0, 1, CANCEL))


async def hangs_up(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)))
    await until(lambda: in_flight(mesh) == 1)
    peer.abort()


async def says_no_more(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head(mesh, path)))


async def stops_in_a_message(mesh: Mesh, peer: Peer, path: str) -> None:
    half = frame(DATA, END_STREAM, 1, b"\x00\x00\x00\x00\x10\x0a\x0e")
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)), half)


async def sends_no_protobuf(mesh: Mesh, peer: Peer, path: str) -> None:
    data = frame(DATA, END_STREAM, 1, b"\x00\x00\x00\x00\x04\xff\xff\xff\xff")
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)), data)


async def has_little_time(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path, **{"grpc-timeout": "30m"})))


async def has_no_time(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path, **{"grpc-timeout": "1m"})))


async def leaves_as_its_time_is_over(mesh: Mesh, peer: Peer, path: str) -> None:
    """As a caller's own clock does it, a moment before ours."""
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path, **{"grpc-timeout": "310m"})))
    await asyncio.sleep(0.3)
    await peer.send(frame(RST_STREAM, 0, 1, CANCEL))


async def announces_too_much(mesh: Mesh, peer: Peer, path: str) -> None:
    data = frame(DATA, 0, 1, b"\x00" + (50_000).to_bytes(4) + bytes(5000))
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)), data)


async def stays_silent(mesh: Mesh, peer: Peer, path: str) -> None:
    await peer.send(frame(HEADERS, END_HEADERS, 1, head(mesh, path)))


Way = Callable[[Mesh, Peer, str], Awaitable[None]]
RAW: dict[Way, End] = {
    resets: CANCELLED,
    resets_later: CANCELLED,
    resets_in_a_message: CANCELLED,
    resets_long_before_its_deadline: CANCELLED,
    hangs_up: CANCELLED,
    says_no_more: MALFORMED,
    stops_in_a_message: MALFORMED,
    sends_no_protobuf: MALFORMED,
    has_little_time: LATE,
    has_no_time: LATE,
    leaves_as_its_time_is_over: LATE,
    announces_too_much: TOO_LARGE,
    stays_silent: SILENT,
}


@pytest.mark.parametrize("way", RAW, ids=lambda way: way.__name__)
async def test_before_the_first_message(tmp_path: Path, way: Way) -> None:
    """Of every method: whatever its arity, and sealed or not."""
    told: Counter[End] = Counter()
    async with mesh(tmp_path, bounds={"first_message_seconds": SHORT if way is stays_silent else 5.0}) as made:
        for path in PUBLIC_ROUTES:
            async with connected(made) as peer:
                await peer.begin()
                await way(made, peer, path)
                told[RAW[way]] += 1
                await until(lambda: recorded(made).total() == told.total())
        await agreed(made, told)
        await served(made)


# As callers of the library.


def stream_of(made: Mesh, channel: Any, prompt: str = "a b", **settings: Any) -> Any:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt=prompt))
    return stub.GenerateStream(request, **{"metadata": made.auth(), **settings})


def unary_of(made: Mesh, channel: Any, prompt: str = "stay", **settings: Any) -> Any:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    return stub.Generate(generation_pb2.GenerateRequest(prompt=prompt), **{"metadata": made.auth(), **settings})


async def ended(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def working(made: Mesh) -> None:
    """Returns once the service works."""
    application: Any = made.services["generation"]._application
    async with asyncio.timeout(20):
        await application.streaming.wait()
    application.streaming.clear()


async def test_left_while_the_service_works(tmp_path: Path) -> None:
    async with mesh(tmp_path) as made, made.channel() as channel:
        told: Counter[End] = Counter()
        for begin in (unary_of, stream_of):
            opened = begin(made, channel)
            waiting = asyncio.ensure_future(told_by(ended(opened) if begin is stream_of else opened))
            await working(made)
            opened.cancel()
            told[await waiting] += 1
        assert told == {CANCELLED: 2}
        await agreed(made, told)


@pytest.mark.parametrize("begin", [unary_of, stream_of])
async def test_deadlines_of_every_length(tmp_path: Path, begin: Any) -> None:
    """Each is told DEADLINE_EXCEEDED; of those that came here that is recorded. None is MALFORMED or CANCELLED."""
    async with mesh(tmp_path) as made, made.channel() as channel:
        await channel.channel_ready()
        told: Counter[End] = Counter()
        for milliseconds in (1, 2, 3, 5, 8, 13, 20, 25, 30, 40, 60, 90, 150, 300, 1005):
            for _ in range(2):
                opened = begin(made, channel, timeout=milliseconds / 1000)
                code, _ = await told_by(ended(opened) if begin is stream_of else opened)
                assert code == "DEADLINE_EXCEEDED"
        await until(lambda: in_flight(made) == 0)
        await served(made)
        await until(lambda: recorded(made)[OK] == 1)
        told[LATE], told[OK] = recorded(made)[LATE], 1
        assert told[LATE] >= 16
        await agreed(made, told)


async def refused_scope(made: Mesh, channel: Any) -> Any:
    return unary_of(made, channel, metadata=made.auth(made.token(scopes=("embed",))))


async def refused_token(made: Mesh, channel: Any) -> Any:
    return unary_of(made, channel, metadata=())


async def refused_model(made: Mesh, channel: Any) -> Any:
    return unary_of(made, channel, metadata=made.auth(made.token(tenant="nobody")))


async def refused_size(made: Mesh, channel: Any) -> Any:
    return unary_of(made, channel, prompt="x" * 11_000)


async def far_too_large(made: Mesh, channel: Any) -> Any:
    return unary_of(made, channel, prompt="x" * 50_000)


async def no_such_method(made: Mesh, channel: Any) -> Any:
    return channel.unary_unary("/meshgate.v1.GenerationService/Nothing")(b"", metadata=made.auth())


async def full_service(made: Mesh, channel: Any) -> Any:
    stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    return stub.Embed(embedding_pb2.EmbedRequest(inputs=["a"]), metadata=made.auth())


async def broken_service(made: Mesh, channel: Any) -> Any:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    return stub.CountTokens(generation_pb2.CountTokensRequest(prompt="a"), metadata=made.auth())


async def no_service(made: Mesh, channel: Any) -> Any:
    await made.services["generation"].stop()
    return unary_of(made, channel, prompt="hello")


async def well(made: Mesh, channel: Any) -> Any:
    return unary_of(made, channel, prompt="hello")


async def no_protobuf(made: Mesh, channel: Any) -> Any:
    return channel.unary_unary(GENERATE)(b"\xff\xff", metadata=made.auth())


ASKED: dict[Callable[[Mesh, Any], Awaitable[Any]], End] = {
    well: OK,
    refused_token: ("UNAUTHENTICATED", "TOKEN_MISSING"),
    refused_scope: ("PERMISSION_DENIED", "SCOPE_MISSING"),
    refused_model: ("PERMISSION_DENIED", "MODEL_NOT_ALLOWED"),
    refused_size: ("INVALID_ARGUMENT", "MESSAGE_TOO_LARGE"),
    far_too_large: ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"),
    no_such_method: ("UNIMPLEMENTED", "METHOD_UNKNOWN"),
    no_protobuf: MALFORMED,
    full_service: ("UNAVAILABLE", "OVERLOADED"),
    broken_service: ("INTERNAL", "INTERNAL"),
    no_service: ("UNAVAILABLE", "BACKEND_UNAVAILABLE"),
}


@pytest.mark.parametrize("ask", ASKED, ids=lambda ask: ask.__name__)
async def test_refused_or_failed_at_each_stage(tmp_path: Path, ask: Any) -> None:
    policy = {"tenants": {"*": {"models": ["*"]}, "nobody": {"models": []}}}
    async with mesh(tmp_path, policy=policy) as made, made.channel() as channel:
        found = await told_by(await ask(made, channel))
        assert found[0] == ASKED[ask][0]
        if ask is not far_too_large:  # of which gRPC tells, without a reason
            assert found[1] == ASKED[ask][1]
        await agreed(made, Counter([ASKED[ask]]))


async def test_more_refusals_than_are_recorded_singly(tmp_path: Path) -> None:
    limits = {"principal": {"concurrent_calls": 1}}
    async with mesh(tmp_path, limits=limits) as made, made.channel() as channel:
        held = stream_of(made, channel)
        await held.read()
        told = Counter(await asyncio.gather(*(told_by(unary_of(made, channel, "hello")) for _ in range(60))))
        assert told == {("RESOURCE_EXHAUSTED", "CONCURRENCY_LIMITED"): 60}
        held.cancel()
        await agreed(made, told + Counter([CANCELLED]))


async def test_a_writer_who_falls_silent_and_a_reader_who_does(tmp_path: Path) -> None:
    bounds = {"silent_writer_seconds": SHORT, "slow_reader_seconds": SHORT}
    async with mesh(tmp_path, bounds=bounds) as made, made.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        writer = stub.EmbedStream(metadata=made.auth())
        await writer.write(embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["a"])))
        told = Counter([await told_by(ended(writer))])
        reader = stream_of(made, channel, "a torrent")
        await reader.read()
        await until(lambda: recorded(made)[SLOW] == 1)
        told[await told_by(ended(reader))] += 1
        assert told == {SILENT: 1, SLOW: 1}
        await agreed(made, told)


async def test_a_gateway_that_stops_says_so(tmp_path: Path) -> None:
    bounds = {"drain_seconds": 0, "first_message_seconds": 20.0}
    async with mesh(tmp_path, bounds=bounds) as made, made.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        bulk, unbegun = (stub.EmbedStream(metadata=made.auth()) for _ in range(2))
        await bulk.write(embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["a"])))
        await bulk.read()
        unary, stream = unary_of(made, channel), stream_of(made, channel)
        calls = [unary, *map(ended, (stream, bulk, unbegun))]
        waiting = asyncio.gather(*map(told_by, calls))
        await until(lambda: in_flight(made) == 4)
        await working(made)
        await made.gateway._drain(made.gateway._server, 0)  # type: ignore[arg-type]
        told = Counter(await waiting)
        assert told == {DRAINING: 4}
        await agreed(made, told)


async def test_a_token_that_is_revoked_midway(tmp_path: Path) -> None:
    revoked = tmp_path / "revoked.json"
    revoked.write_text(json.dumps({"revoked": []}))
    async with mesh(tmp_path, revocation={"file": revoked}) as made, made.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stream = stub.EmbedStream(metadata=made.auth())
        piece = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["a"]))
        await stream.write(piece)
        await stream.read()
        entry = {"issuer": dev_issuer.ISSUER, "subject": "alice"}
        revoked.write_text(json.dumps({"revoked": [entry]}))
        told = await told_by(until_refused(stream, piece))
        assert told == ("UNAUTHENTICATED", "TOKEN_REVOKED")
        await agreed(made, Counter([told]))


async def until_refused(stream: Any, piece: Any) -> None:
    async with asyncio.timeout(20):
        while True:
            await stream.write(piece)
            if await stream.read() is grpc.aio.EOF:
                return
            await asyncio.sleep(0.1)
