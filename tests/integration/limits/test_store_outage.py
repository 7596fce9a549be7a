"""A real Valkey stops and comes back: calls are refused or decided by each process, and all is as before without a
restart. The whole gateway, over TLS.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.limits.redis_store import RedisStore
from meshgate import errors
from meshgate.rpc import status
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh
from tests.support.network.valkey import PATIENT, Valkey, until


@asynccontextmanager
async def running(
    home: Path, valkey: Valkey, timeout_seconds: float = PATIENT, **limits: Any
) -> AsyncIterator[tuple[Mesh, Any]]:
    valkey.start()
    store = {"url": f"unix://{valkey.path}", "timeout_seconds": timeout_seconds}
    applications = {"generation": ScriptedApplication()}
    try:
        async with (
            meshes.mesh(home, applications, limits=limits, store=store) as mesh,
            mesh.channel() as channel,
        ):
            yield mesh, generation_pb2_grpc.GenerationServiceStub(channel)
    finally:
        valkey.stop()


async def ask(mesh: Mesh, stub: Any) -> errors.MeshError | None:
    """A call: the error it ends with, or None."""
    try:
        await stub.Generate(generation_pb2.GenerateRequest(prompt="hello"), metadata=mesh.auth(), timeout=20)
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error)
    return None


class Asked:
    """When a store that is down was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times: list[float] = []
        take = RedisStore.take

        async def taken(store: RedisStore, *arguments: Any) -> Any:
            self.times.append(time.monotonic())
            return await take(store, *arguments)

        monkeypatch.setattr(RedisStore, "take", taken)

    def check(self) -> None:
        """Three times, and from then on once a second."""
        assert len(self.times) >= 3
        assert all(later - earlier >= 1 for earlier, later in pairwise(self.times[2:]))


async def test_deny_refuses_while_it_is_down_and_serves_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey = Valkey(tmp_path)
    async with running(tmp_path, valkey) as (mesh, stub):
        assert await ask(mesh, stub) is None
        valkey.stop()
        asked = Asked(monkeypatch)
        refused = [await ask(mesh, stub) for _ in range(20)]
        assert {getattr(error, "reason", None) for error in refused} == {"LIMITS_UNAVAILABLE"}
        asked.check()
        assert isinstance(refused[0], errors.Unavailable)
        assert refused[0].retry_after == 1.0
        assert mesh.record_of(refused[0])["decision"] == "deny"
        valkey.start()

        async def back() -> bool:
            return await ask(mesh, stub) is None

        await until(back, 20)
        counts = mesh.gateway._limits.counts
        assert counts["down"] == counts["up"] == 1
        assert counts["denied"] >= 20


async def test_local_gives_out_a_share_and_says_so(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    limits: dict[str, Any] = {"principal": {"requests_per_second": 0.01, "burst": 20}}
    async with running(tmp_path, valkey, **limits, on_outage="local", replicas=4) as (mesh, stub):
        assert await ask(mesh, stub) is None
        valkey.stop()
        answers = [await ask(mesh, stub) for _ in range(10)]
        assert answers[:5] == [None] * 5
        assert {getattr(error, "reason", None) for error in answers[5:]} == {"RATE_LIMITED"}
        assert mesh.gateway._limits.counts["local"] == 10
        ended = [record for record in mesh.records() if record["event"] == "ended"]
        assert [record.get("limits", "") for record in ended] == ["", *["local"] * 5]
        valkey.start()

        async def back() -> bool:
            return await ask(mesh, stub) is None

        await until(back, 20)
        assert await ask(mesh, stub) is None  # of the store's burst again


async def test_a_store_that_hangs_costs_its_timeout_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a few calls; the others don't even ask."""
    valkey = Valkey(tmp_path)
    async with running(tmp_path, valkey, timeout_seconds=0.5, on_outage="local") as (mesh, stub):
        await ask(mesh, stub)
        asked, counts = Asked(monkeypatch), mesh.gateway._limits.counts
        before = counts["local"]
        with valkey.hanging():
            assert [await ask(mesh, stub) for _ in range(20)] == [None] * 20
        assert counts["local"] == before + 20
        asked.check()


async def test_streams_outlive_the_store(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    async with running(tmp_path, valkey) as (mesh, stub):
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="one two"))
        stream = stub.GenerateStream(request, metadata=mesh.auth())
        assert (await stream.read()).deltas[0].text == "one"
        valkey.stop()
        application: Any = mesh.services["generation"]._application
        application.go_on.set()
        async with asyncio.timeout(20):
            assert (await stream.read()).deltas[0].text == "two"
            assert await stream.code() == grpc.StatusCode.OK
        with pytest.raises(AssertionError):
            assert await ask(mesh, stub) is None
