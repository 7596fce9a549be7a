"""A service and the process of its models, over real mutual TLS: neither outlives the other, and callers are told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate import errors
from meshgate.rpc import tls
from meshgate.rpc.channel import open_channel
from meshgate.rpc.server import ServerConfig, serve
from meshgate.v1 import classification_pb2, classification_pb2_grpc, embedding_pb2, embedding_pb2_grpc
from services.classification import app as classification_app
from services.classification.config import ClassificationConfig
from services.embedding import app as embedding_app
from services.embedding.config import EmbeddingConfig
from services.model_process import SubprocessHost
from tests.support.network import mesh as meshes
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier

ENGINE = {"hang_seconds": 3.0, "threads": 1}


def embedding(server: ServerConfig, folder: Path) -> Any:
    section = {"source": str(build_tiny_bert(folder)), "dtype": "float32", "device": "cpu"}
    return embedding_app.build(EmbeddingConfig.model_validate({"server": server, "model": section, "engine": ENGINE}))


def classification(server: ServerConfig, folder: Path) -> Any:
    sections = [{"source": str(build_tiny_classifier(folder)), "name": "colour"}]
    engine = {**ENGINE, "dtype": "float32", "device": "cpu"}
    made = {"server": server, "classifiers": sections, "zero_shot": None, "custom": None, "engine": engine}
    return classification_app.build(ClassificationConfig.model_validate(made))


def embed(channel: grpc.aio.Channel) -> Any:
    stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    return stub.Embed(embedding_pb2.EmbedRequest(inputs=["a"]))


def classify(channel: grpc.aio.Channel) -> Any:
    stub: Any = classification_pb2_grpc.ClassificationServiceStub(channel)
    return stub.Classify(classification_pb2.ClassifyRequest(inputs=[classification_pb2.ClassificationInput(text="a")]))


KINDS = {
    "embedding": ("meshgate.v1.EmbeddingService", embedding, embed),
    "classification": ("meshgate.v1.ClassificationService", classification, classify),
}


@dataclass
class Service:
    """One that serves."""

    running: asyncio.Task[int]
    call: Callable[[], Any]
    health: Any
    """What its health is, one state after the other."""
    models: int
    """The pid of the models' process."""
    cpu_seconds: Callable[[], float]

    async def ends(self) -> None:
        """As failed, its health first, and nothing is left."""
        assert (await self.health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await self.running == 1
        with pytest.raises(ProcessLookupError):
            os.kill(self.models, 0)


@pytest.fixture(params=KINDS)
async def service(request: pytest.FixtureRequest, tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Service]:
    full_name, build, call = KINDS[request.param]
    meshes.prepare(tmp_path)
    server = ServerConfig(
        listen=f"127.0.0.1:{unused_tcp_port}",
        tls=meshes.identity(tmp_path, request.param),
        peers={"/meshgate.v1.*": [meshes.GATEWAY_ID], "/grpc.health.v1.*": [meshes.GATEWAY_ID]},
    )
    (tmp_path / "model").mkdir()
    made = build(server, tmp_path / "model")
    running = asyncio.create_task(serve(server, made))
    credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
    async with asyncio.timeout(60), open_channel(server.listen, credentials, part=request.param) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=full_name), wait_for_ready=True)
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        assert isinstance(made._host, SubprocessHost)
        assert made._host._process is not None
        yield Service(running, lambda: call(channel), watch, made._host._process.pid, made.cpu_seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_models_that_hang_fail_their_callers_and_end_the_service(service: Service) -> None:
    await service.call()
    os.kill(service.models, signal.SIGSTOP)
    for error in await asyncio.gather(*(meshes.refused(service.call()) for _ in range(3))):
        assert (type(error), error.reason) == (errors.Unavailable, "MODEL_FAILED")
    await service.ends()


async def test_models_that_are_killed_in_a_batch_fail_their_callers_and_end_the_service(service: Service) -> None:
    os.kill(service.models, signal.SIGSTOP)
    calls = [asyncio.create_task(meshes.refused(service.call())) for _ in range(3)]
    os.kill(service.models, signal.SIGKILL)
    for error in await asyncio.gather(*calls):
        assert (type(error), error.reason) == (errors.Unavailable, "MODEL_FAILED")
    await service.ends()


async def test_models_that_are_killed_while_nobody_calls_end_the_service_too(service: Service) -> None:
    os.kill(service.models, signal.SIGKILL)
    await service.ends()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel can't tell")
async def test_the_load_that_is_reported_has_the_models_in_it(service: Service) -> None:
    await service.call()
    assert service.cpu_seconds() > time.process_time() + 0.1  # importing torch alone takes longer


async def test_the_service_ends_its_models(service: Service) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert await service.running == 0
    with pytest.raises(ProcessLookupError):
        os.kill(service.models, 0)
