"""Calls that are headers alone, from callers who are known: they count as their caller's from the first, whatever the
method and whichever limit it is, and all others are served meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.routes import PUBLIC_ROUTES
from meshgate import errors
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import GENERATE, HELLO, edge, in_flight, lines, metric, served, until
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
from tests.support.network.mesh import Mesh, refused
from tests.support.network.valkey import Valkey

ALLOWED = 3
CALLS = 12
MANY = {"requests_per_second": 10_000, "burst": 10_000}
STREAMING = [path for path, route in PUBLIC_ROUTES.items() if route.client_streams or route.server_streams]


@asynccontextmanager
async def mesh(
    home: Path, limits: Mapping[str, Any], store: Valkey | None = None, **bounds: Any
) -> AsyncIterator[Mesh]:
    meshes.prepare(home)
    applications = {"generation": ScriptedApplication(), "embedding": ScriptedApplication()}
    more = {} if store is None else {"store": store.config.model_dump()}
    async with meshes.mesh(home, applications, server=edge(home, **bounds), limits=limits, **more) as made:
        yield made
        await until(lambda: in_flight(made) == 0)
        assert len(made.gateway._limits._pending) == 0


async def opened(peer: Peer, mesh: Mesh, path: str, number: int = CALLS, **who: str) -> list[int]:
    """Begins so many calls of which nothing but the headers comes."""
    headers = block(call(path, **dict(mesh.auth(mesh.token(**who)))))
    streams = list(range(1, 2 * number, 2))
    await peer.send(*(frame(HEADERS, END_HEADERS, stream, headers) for stream in streams))
    return streams


def refusals(mesh: Mesh) -> Counter[str]:
    """Why calls were refused, sums included."""
    counts: Counter[str] = Counter()
    for record in lines(mesh):
        if record.get("event") in ("refused", "refusals"):
            counts[record["reason"]] += record.get("count", 1)
    return counts


def limited(scope: str, kind: str) -> dict[str, Any]:
    return {scope: {kind: ALLOWED}}


@pytest.mark.parametrize("path", PUBLIC_ROUTES)
@pytest.mark.parametrize("kind", ["concurrent_calls", "concurrent_streams"])
@pytest.mark.parametrize("scope", ["principal", "tenant", "total"])
async def test_headers_alone_count_from_the_first(tmp_path: Path, scope: str, kind: str, path: str) -> None:
    if kind == "concurrent_streams" and path not in STREAMING:
        pytest.skip("no limit of a call that streams nothing")
    async with mesh(tmp_path, limited(scope, kind)) as made, connected(made) as peer:
        await peer.begin()
        await opened(peer, made, path)
        await until(lambda: refusals(made) == {"CONCURRENCY_LIMITED": CALLS - ALLOWED})
        await until(lambda: in_flight(made) == ALLOWED)
        if scope != "total":
            await served(made)
        record = next(line for line in lines(made) if line.get("event") == "refused")
        assert (record["tenant"], record["subject"], record["status"]) == ("acme", "alice", "RESOURCE_EXHAUSTED")


async def test_the_caller_is_told_whose_limit_it_is(tmp_path: Path) -> None:
    async with mesh(tmp_path, limited("tenant", "concurrent_calls")) as made, connected(made) as peer:
        await peer.begin()
        await opened(peer, made, GENERATE, ALLOWED)
        await until(lambda: in_flight(made) == ALLOWED)
        async with made.channel() as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            error = await refused(stub.Generate(HELLO, metadata=made.auth(made.token(subject="bob"))))
        assert isinstance(error, errors.LimitExceeded)
        assert (error.reason, error.subject, error.limit) == ("CONCURRENCY_LIMITED", "tenant:acme", "concurrent_calls")


async def test_calls_in_hand_and_headers_alone_share_one_limit(tmp_path: Path) -> None:
    """Two streams go on, so that one more may begin; once they have ended, three may."""
    limits = {"principal": {"concurrent_calls": ALLOWED, **MANY}}
    async with mesh(tmp_path, limits) as made, made.channel() as channel, connected(made) as peer:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="a b"))
        streams = [stub.GenerateStream(request, metadata=made.auth()) for _ in range(2)]
        await asyncio.gather(*(stream.read() for stream in streams))
        await peer.begin()
        await opened(peer, made, GENERATE)
        await until(lambda: refusals(made) == {"CONCURRENCY_LIMITED": CALLS - 1})
        for stream in streams:
            stream.cancel()
        await until(lambda: in_flight(made) == 1)
        async with connected(made) as again:
            await again.begin()
            await opened(again, made, GENERATE)
            await until(lambda: refusals(made) == {"CONCURRENCY_LIMITED": 2 * CALLS - 3})


async def test_what_is_reset_or_begins_frees_its_place(tmp_path: Path) -> None:
    async with mesh(tmp_path, {"principal": {"concurrent_calls": ALLOWED, **MANY}}) as made, connected(made) as peer:
        await peer.begin()
        streams = await opened(peer, made, GENERATE, ALLOWED)
        await until(lambda: in_flight(made) == ALLOWED)
        message = HELLO.SerializeToString()
        await peer.send(
            frame(RST_STREAM, 0, streams[0], CANCEL),
            frame(DATA, END_STREAM, streams[1], b"\x00" + len(message).to_bytes(4) + message),
        )
        await until(lambda: in_flight(made) == 1)
        async with made.channel() as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            replies = await asyncio.gather(*(stub.Generate(HELLO, metadata=made.auth()) for _ in range(ALLOWED - 1)))
        assert [reply.candidates[0].text for reply in replies] == ["hello"] * (ALLOWED - 1)


@pytest.mark.parametrize("size", [0, 1, 5])
async def test_half_a_message_is_none(tmp_path: Path, size: int) -> None:
    async with mesh(tmp_path, limited("principal", "concurrent_calls")) as made, connected(made) as peer:
        await peer.begin()
        streams = await opened(peer, made, GENERATE, ALLOWED)
        half = b"\x00\x00\x00\x00\x10" + b"\x0a\x0e..."
        await peer.send(*(frame(DATA, 0, stream, half[:size]) for stream in streams))
        await until(lambda: in_flight(made) == ALLOWED)
        async with made.channel() as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            error = await refused(stub.Generate(HELLO, metadata=made.auth()))
        assert error.reason == "CONCURRENCY_LIMITED"
        await served(made)


async def test_a_models_own_limit_keeps_nobody_from_beginning(tmp_path: Path) -> None:
    """The general limit is used up. A call of the model that has its own is let in, and one more of it is not."""
    limits = {
        "principal": {"concurrent_calls": 1, **MANY},
        "models": {"beta": {"principal": {"concurrent_calls": 2}}},
    }
    async with mesh(tmp_path, limits) as made, made.channel() as channel, connected(made) as peer:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)

        def stream(model: str) -> Any:
            request = generation_pb2.GenerateRequest(prompt="a b", model=model)
            return stub.GenerateStream(
                generation_pb2.GenerateStreamRequest(request=request), metadata=made.auth(), timeout=20
            )

        held = [stream(model) for model in ("", "beta")]
        await asyncio.gather(*(each.read() for each in held))
        assert (await refused(stream("").read())).reason == "CONCURRENCY_LIMITED"
        held.append(stream("beta"))
        await held[-1].read()
        await peer.begin()
        await opened(peer, made, GENERATE)
        await until(lambda: refusals(made)["CONCURRENCY_LIMITED"] == 1 + CALLS)
        for each in held:
            each.cancel()
        await until(lambda: in_flight(made) == 0)


@pytest.mark.parametrize(
    "limits", [{}, {"principal": {"concurrent_calls": 10**6}, "tenant": {"concurrent_calls": 10**6}}]
)
async def test_without_a_limit_one_caller_still_does_not_fill_the_process(tmp_path: Path, limits: Any) -> None:
    async with mesh(tmp_path, limits, max_calls=100) as made, connected(made) as first, connected(made) as second:
        await first.begin()
        await opened(first, made, GENERATE, 150)
        await until(lambda: refusals(made) == {"CONCURRENCY_LIMITED": 100})
        await second.begin()
        await opened(second, made, GENERATE, 150, subject="mallory")
        await until(lambda: refusals(made) == {"CONCURRENCY_LIMITED": 100 + 125})
        assert metric(made, "meshgate_gateway_inside_calls")["calls",] == 75
        await served(made)


@pytest.mark.parametrize("path", [GENERATE, "/meshgate.v1.SealedService/CallStream"])
async def test_processes_that_share_a_store_share_the_limit(tmp_path: Path, path: str) -> None:
    """Each takes as many as there may be; then the store refuses all but those."""
    valkey = Valkey(tmp_path)
    valkey.start()
    limits = {"principal": {"concurrent_calls": ALLOWED, **MANY}}
    try:
        async with (
            mesh(tmp_path / "one", limits, valkey) as one,
            mesh(tmp_path / "two", limits, valkey) as two,
            connected(one) as first,
            connected(two) as second,
        ):
            for made, peer in ((one, first), (two, second)):
                await peer.begin()
                await opened(peer, made, path)
            await until(lambda: in_flight(one) + in_flight(two) == ALLOWED)
            both = refusals(one) + refusals(two)
            assert both == {"CONCURRENCY_LIMITED": 2 * CALLS - ALLOWED}
            for made in (one, two):
                await served(made)
    finally:
        valkey.stop()


async def test_a_call_that_waited_begins_on_the_place_that_it_has(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        limits = {"principal": {"concurrent_calls": 1, **MANY}}
        async with mesh(tmp_path / "one", limits, valkey) as made, connected(made) as peer:
            await peer.begin()
            [stream] = await opened(peer, made, GENERATE, 1)
            async with valkey.client() as client:
                await until_taken(client)
            message = HELLO.SerializeToString()
            await peer.send(frame(DATA, END_STREAM, stream, b"\x00" + len(message).to_bytes(4) + message))
            await until(lambda: in_flight(made) == 0)
            ended = [record for record in made.records() if record["event"] == "ended"]
            assert [record["status"] for record in ended] == ["OK"]
            await served(made)
    finally:
        valkey.stop()


async def until_taken(client: Any) -> None:
    async with asyncio.timeout(20):
        while not await client.zcard("meshgate:limits:calls:principal: acme alice"):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
