"""What holds under every attack: somebody else is served meanwhile, and afterwards nothing is left of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

SECONDS = 20.0
"""How long anything may take that should happen at once."""

HELLO = generation_pb2.GenerateRequest(prompt="hello")
GENERATE = "/meshgate.v1.GenerationService/Generate"


def edge(home: Path, **bounds: Any) -> dict[str, Any]:
    """The server section of a gateway with these bounds."""
    identity = meshes.identity(home, "gateway", ask_client=False).model_dump()
    return {"listen": "127.0.0.1:0", "tls": identity, "drain_seconds": 1, **bounds}


@asynccontextmanager
async def attacked(home: Path, application: Any = None, **bounds: Any) -> AsyncIterator[Mesh]:
    """A mesh whose edge has these bounds. At the end somebody is still served, and no call is left in it."""
    meshes.prepare(home)
    applications = {"generation": application or ScriptedApplication(), "embedding": ScriptedApplication()}
    async with meshes.mesh(home, applications, server=edge(home, **bounds)) as mesh:
        yield mesh
        await served(mesh)
        await until(lambda: in_flight(mesh) == 0)


async def served(mesh: Mesh) -> None:
    """Another caller, on a connection of its own, is served now."""
    async with asyncio.timeout(SECONDS), mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        reply = await stub.Generate(HELLO, metadata=mesh.auth(mesh.token(tenant="bystanders", subject="bob")))
    assert reply.candidates[0].text == "hello"


async def until(condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds. For what gRPC does by itself and tells nobody."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.01)


def in_flight(mesh: Mesh) -> float:
    """Calls that go on in the gateway, as its metrics tell."""
    return sum(metric(mesh, "meshgate_gateway_calls_in_flight").values())


def lines(mesh: Mesh) -> list[dict[str, Any]]:
    """All that the audit log holds, oldest first."""
    found = [
        json.loads(line)
        for path in sorted((mesh.home / "audit").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [line["record"] for line in found if "record" in line]


def reasons(mesh: Mesh) -> list[str]:
    """Why calls were refused or failed, oldest first."""
    return [record["reason"] for record in lines(mesh) if "reason" in record]


def metric(mesh: Mesh, name: str) -> dict[tuple[str, ...], float]:
    """A number of the gateway by the values of its labels."""
    families = mesh.gateway.exposition.registry.collect()
    samples = [sample for family in families for sample in family.samples]
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}
