"""The embedding service when its model hangs, over real mutual TLS: its callers, its health, and its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate import errors
from meshgate.runtime import tls
from meshgate.runtime.server import ServerConfig, serve
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import embedding_pb2_grpc
from services.embedding import app as apps
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, EngineConfig, ModelConfig
from services.embedding.model import EmbeddingModel, Item, Vector
from tests.integration import mesh as meshes
from tests.tinymodels.bert import build_tiny_bert

SERVICE = "meshgate.v1.EmbeddingService"


class Hangs(EmbeddingModel):
    """Stops at the word that says so."""

    let_go = threading.Event()

    def __init__(self, real: EmbeddingModel) -> None:
        super().__init__(real.encoder, real.tokeniser, real.card)

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        if len(batch) > 1:
            self.let_go.wait(60)
        return super().run(batch)


async def test_a_model_that_hangs_ends_the_process_and_fails_its_callers_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    load = apps._load
    monkeypatch.setattr(apps, "_load", lambda config, key: Hangs(load(config, key)))
    meshes.prepare(tmp_path)
    server = ServerConfig(
        listen=f"127.0.0.1:{unused_tcp_port}",
        tls=meshes.identity(tmp_path, "embedding"),
        peers={"/meshgate.v1.*": [meshes.GATEWAY_ID], "/grpc.health.v1.*": [meshes.GATEWAY_ID]},
        drain_seconds=60,
    )
    model = ModelConfig(source=str(build_tiny_bert(tmp_path / "bert")), dtype="float32", device="cpu")
    app = App(EmbeddingConfig(server=server, model=model, engine=EngineConfig(hang_seconds=2)))
    running = asyncio.create_task(serve(server, app))
    credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
    async with asyncio.timeout(30), grpc.aio.secure_channel(server.listen, credentials) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), wait_for_ready=True)
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        assert len((await stub.Embed(pb.EmbedRequest(inputs=["a"]))).embeddings) == 1
        calls = [stub.Embed(pb.EmbedRequest(inputs=["a", "b"])) for _ in range(3)]
        for call in calls:
            error = await meshes.refused(call)
            assert (type(error), error.reason) == (errors.Unavailable, "MODEL_FAILED")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await running == 1
    Hangs.let_go.set()
