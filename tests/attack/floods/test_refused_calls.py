"""Floods of calls that are not let in: cheap, quiet, and accounted for to the last one."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from gateway.commands import dev_issuer
from gateway.commands.audit import audit
from meshgate.v1 import generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.bystander import HELLO, attacked, lines, metric, served, until
from tests.support.network.mesh import Mesh

CALLS = 1000


def few(seconds: float) -> float:
    """The most records of a flood that took so long: twenty a second singly, and their sum."""
    return (20 + 1) * (seconds + 2)


def refusals(mesh: Mesh) -> list[dict[str, Any]]:
    """Records of refusals, single ones and sums."""
    return [record for record in lines(mesh) if record.get("event") in {"refused", "refusals"}]


async def test_every_refusal_of_a_flood_is_in_few_records(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        begun = time.monotonic()
        codes = await asyncio.gather(*(stub.Generate(HELLO).code() for _ in range(CALLS)))
        seconds = time.monotonic() - begun
        await served(mesh)
        assert set(codes) == {grpc.StatusCode.UNAUTHENTICATED}
        await until(lambda: sum(record.get("count", 1) for record in refusals(mesh)) == CALLS)
        found = refusals(mesh)
        assert len(found) <= few(seconds)
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


def told(mesh: Mesh, *asked: str) -> list[dict[str, Any]]:
    """What `meshgate audit search` finds."""
    command = ["search", str(mesh.home / "audit"), "--json", "--limit", "0", *asked]
    result = CliRunner().invoke(audit, command)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def counted(records: list[dict[str, Any]]) -> int:
    return sum(record.get("count", 1) for record in records if record["event"] in {"refused", "refusals"})


@pytest.mark.parametrize(("scopes", "reason"), [(("embed",), "SCOPE_MISSING"), (dev_issuer.SCOPES, "RATE_LIMITED")])
async def test_a_flood_of_a_caller_with_a_good_token_is_in_few_records_that_are_found_under_its_name(
    tmp_path: Path, scopes: tuple[str, ...], reason: str
) -> None:
    limits = {"tenants": {"acme": {"tenant": {"requests_per_second": 0.001, "burst": 1}}}}
    services = {"generation": ScriptedApplication()}
    async with meshes.mesh(tmp_path, services, limits=limits) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        auth = mesh.auth(mesh.token(scopes=scopes))
        begun = time.monotonic()
        codes = await asyncio.gather(*(stub.Generate(HELLO, metadata=auth).code() for _ in range(CALLS)))
        seconds = time.monotonic() - begun
        await served(mesh)
        refused = CALLS - codes.count(grpc.StatusCode.OK)
        assert refused >= CALLS - 1
        await until(lambda: counted(refusals(mesh)) == refused)
        found = told(mesh, "--tenant", "acme", "--subject", "alice", "--reason", reason)
        assert counted(found) == refused
        assert len(found) <= few(seconds)
        assert counted(told(mesh, "--tenant", "acme", "--decision", "deny")) == refused
        assert told(mesh, "--tenant", "bystanders", "--decision", "deny") == []
