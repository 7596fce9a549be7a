"""Calls that their callers leave: at once, midway, with their connection. Each ends, is recorded, and holds nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network.bystander import HELLO, attacked, in_flight, metric, served, until
from tests.support.network.mesh import Mesh

CALLS = 100


def open_ends(mesh: Mesh) -> Counter[str]:
    """Calls that were let in and have no end, by request id."""
    counts: Counter[str] = Counter()
    for record in mesh.records():
        counts[record.get("request_id", "")] += {"admitted": 1, "ended": -1}.get(record["event"], 0)
    return +counts


async def test_calls_that_are_left_at_once(tmp_path: Path) -> None:
    async with attacked(tmp_path) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        calls = [stub.Generate(HELLO, metadata=mesh.auth()) for _ in range(CALLS)]
        for number, call in enumerate(calls):
            if number % 10 == 0:
                await asyncio.sleep(0)
            call.cancel()
        await served(mesh)
        await asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: in_flight(mesh) == 0 and not open_ends(mesh))


async def test_streams_that_are_left_midway(tmp_path: Path) -> None:
    application = ScriptedApplication()
    async with attacked(tmp_path, application) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="a b"))
        streams = [stub.GenerateStream(request, metadata=mesh.auth()) for _ in range(50)]
        await asyncio.gather(*(stream.read() for stream in streams))
        assert in_flight(mesh) == 50
        for stream in streams:
            stream.cancel()
        await until(lambda: in_flight(mesh) == 0 and not open_ends(mesh))
        assert application.abandoned.is_set()
        ended = [record for record in mesh.records() if record["event"] == "ended"]
        assert [record["status"] for record in ended].count("CANCELLED") == 50


async def test_a_connection_that_is_lost(tmp_path: Path) -> None:
    async with attacked(tmp_path, ScriptedApplication()) as mesh:
        channel = mesh.channel()
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="a b"))
        streams = [stub.GenerateStream(request, metadata=mesh.auth()) for _ in range(20)]
        await asyncio.gather(*(stream.read() for stream in streams))
        await channel.close()
        await until(lambda: in_flight(mesh) == 0 and not open_ends(mesh))
        failed = metric(mesh, "meshgate_gateway_failed_calls_total")
        assert failed["CANCELLED",] == 20
