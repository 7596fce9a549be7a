"""Calls sealed to a service that has replicas: any of them opens them if they share keys, and else says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from meshgate.client import aio, explain
from meshgate.v1 import embedding_pb2_grpc
from tests.support.network.replicas import ASK, Fleet, Replica, fleet

CALLS = 24


def replicas() -> list[Replica]:
    return [Replica(name) for name in ("a", "b", "c")]


async def sealed(found: Fleet) -> list[str]:
    """Who answered each call sealed to the service, or why it was refused."""
    mesh = found.mesh
    async with aio.connect(mesh.target, ca=mesh.ca, token=mesh.token(), sealed="service") as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        return [await outcome(stub) for _ in range(CALLS)]


async def outcome(stub: Any) -> str:
    try:
        return str((await stub.Embed(ASK, timeout=20)).model)
    except grpc.aio.AioRpcError as error:
        return explain(error).reason


async def test_any_replica_opens_what_is_sealed_to_the_service_where_keys_are_shared(tmp_path: Path) -> None:
    async with fleet(tmp_path, replicas(), shared_keys=True) as found:
        await found.until({"a", "b", "c"})
        assert set(await sealed(found)) == {"a", "b", "c"}


async def test_a_replica_with_keys_of_its_own_says_that_it_lacks_the_key(tmp_path: Path) -> None:
    async with fleet(tmp_path, replicas()) as found:
        await found.until({"a", "b", "c"})
        answers = set(await sealed(found))
        assert "SEAL_KEY_UNKNOWN" in answers
        assert answers <= {"a", "b", "c", "SEAL_KEY_UNKNOWN"}
