"""Floods of callers who are not let in: cheap, quiet, and accounted for to the last one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc

from meshgate.v1 import generation_pb2_grpc
from tests.attack.bystander import HELLO, attacked, lines, metric, served, until
from tests.integration.mesh import Mesh

CALLS = 1000


def refusals(mesh: Mesh) -> list[dict[str, Any]]:
    """Records of refusals, single ones and sums."""
    return [record for record in lines(mesh) if record.get("event") in {"refused", "refusals"}]


async def test_every_refusal_of_a_flood_is_in_few_records(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        codes = await asyncio.gather(*(stub.Generate(HELLO).code() for _ in range(CALLS)))
        await served(mesh)
        assert set(codes) == {grpc.StatusCode.UNAUTHENTICATED}
        await until(lambda: sum(record.get("count", 1) for record in refusals(mesh)) == CALLS)
        found = refusals(mesh)
        assert len(found) < CALLS / 4
        summed = [record for record in found if "count" in record]
        assert {(record["peer"], record["reason"]) for record in summed} == {("127.0.0.1", "TOKEN_MISSING")}
        assert sum(metric(mesh, "meshgate_gateway_summed_refusals_total").values()) == sum(
            record["count"] for record in summed
        )
        assert all(record["first"] <= record["time"] for record in summed)
        assert metric(mesh, "meshgate_gateway_refused_calls_total")["TOKEN_MISSING",] == CALLS


async def test_sums_that_wait_are_told_at_the_stop(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        await asyncio.gather(*(stub.Generate(HELLO).code() for _ in range(100)))
    assert sum(record.get("count", 1) for record in refusals(mesh)) == 100


async def test_a_caller_with_a_good_token_is_always_recorded_singly(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        token = mesh.token(scopes=("embed",))
        await asyncio.gather(*(stub.Generate(HELLO, metadata=mesh.auth(token)).code() for _ in range(100)))
        assert len([record for record in refusals(mesh) if record.get("subject") == "alice"]) == 100
