"""A service whose model hangs, over real mutual TLS: its callers, its health, and the end of its process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshgate import errors
from meshgate.rpc import tls
from meshgate.rpc.channel import open_channel
from meshgate.rpc.server import Application, ServerConfig, serve
from meshgate.v1 import (
    classification_pb2,
    classification_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
)
from services.classification.app import App as Classification
from services.classification.config import ClassificationConfig
from services.classification.model.classifier import Classifier
from services.embedding.app import App as Embedding
from services.embedding.config import EmbeddingConfig
from services.generation.app import App as Generation
from services.generation.config import GenerationConfig
from services.generation.model.causal_model import CausalModel
from services.sentence_transformers.model import EmbeddingModel
from tests.support.network import mesh as meshes
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier
from tests.tinymodels.llama import build_tiny_llama

HANG_SECONDS = 4.0
"""A busy machine may take two for a first step of a tiny model."""
DRAIN_SECONDS = 60
"""Longer than the test takes: callers are told before it is over."""
ENGINE = {"hang_seconds": HANG_SECONDS, "threads": 1}


@dataclass
class Service:
    """One of the three, with a tiny model."""

    name: str
    full_name: str
    build: Callable[[ServerConfig, Path], Application]
    call: Callable[[grpc.aio.Channel], Any]
    model: Any
    method: str
    """Of the model, which hangs."""


def embedding(server: ServerConfig, folder: Path) -> Application:
    section = {"source": str(build_tiny_bert(folder)), "dtype": "float32", "device": "cpu"}
    return Embedding(EmbeddingConfig.model_validate({"server": server, "model": section, "engine": ENGINE}))


def classification(server: ServerConfig, folder: Path) -> Application:
    section = {"source": str(build_tiny_classifier(folder)), "name": "colour"}
    engine = {**ENGINE, "dtype": "float32", "device": "cpu"}
    made = {"server": server, "classifiers": [section], "zero_shot": None, "custom": None, "engine": engine}
    return Classification(ClassificationConfig.model_validate(made))


def generation(server: ServerConfig, folder: Path) -> Application:
    section = {"source": str(build_tiny_llama(folder)), "dtype": "float32", "device": "cpu"}
    return Generation(GenerationConfig.model_validate({"server": server, "model": section, "engine": ENGINE}))


def generation_with_one_place(server: ServerConfig, folder: Path) -> Application:
    section = {"source": str(build_tiny_llama(folder)), "dtype": "float32", "device": "cpu"}
    engine = {**ENGINE, "max_batch": 1, "max_queue": 0}
    return Generation(GenerationConfig.model_validate({"server": server, "model": section, "engine": engine}))


def embed(channel: grpc.aio.Channel) -> Any:
    stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
    return stub.Embed(embedding_pb2.EmbedRequest(inputs=["a"]))


def classify(channel: grpc.aio.Channel) -> Any:
    stub: Any = classification_pb2_grpc.ClassificationServiceStub(channel)
    return stub.Classify(classification_pb2.ClassifyRequest(inputs=[classification_pb2.ClassificationInput(text="a")]))


def generate(channel: grpc.aio.Channel) -> Any:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    return stub.Generate(generation_pb2.GenerateRequest(prompt="a", max_output_tokens=3))


async def stream(channel: grpc.aio.Channel) -> None:
    stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
    request = generation_pb2.GenerateRequest(prompt="a", max_output_tokens=3)
    async for _ in stub.GenerateStream(generation_pb2.GenerateStreamRequest(request=request)):
        pass


SERVICES = [
    Service("embedding", "meshgate.v1.EmbeddingService", embedding, embed, EmbeddingModel, "run"),
    Service(
        "classification",
        "meshgate.v1.ClassificationService",
        classification,
        classify,
        Classifier,
        "rows",
    ),
    Service("generation", "meshgate.v1.GenerationService", generation, generate, CausalModel, "prefill"),
    Service("generation", "meshgate.v1.GenerationService", generation_with_one_place, stream, CausalModel, "decode"),
]


class Hang:
    """A model's method that, once `begin` was called, does not come back until the test is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Any, method: str) -> None:
        self._begun = False
        self.let_go = threading.Event()
        whole = getattr(model, method)

        def hanging(*arguments: Any, **named: Any) -> Any:
            if self._begun:
                self.let_go.wait(60)
            return whole(*arguments, **named)

        monkeypatch.setattr(model, method, hanging)

    def begin(self) -> None:
        self._begun = True


@pytest.fixture(params=SERVICES, ids=lambda each: each.name)
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch, service: Service) -> Iterator[Hang]:
    made = Hang(monkeypatch, service.model, service.method)
    yield made
    made.let_go.set()


async def test_a_model_that_hangs_ends_the_process_and_fails_its_callers(
    tmp_path: Path, service: Service, hang: Hang, unused_tcp_port: int
) -> None:
    meshes.prepare(tmp_path)
    server = ServerConfig(
        listen=f"127.0.0.1:{unused_tcp_port}",
        tls=meshes.identity(tmp_path, service.name),
        peers={"/meshgate.v1.*": [meshes.GATEWAY_ID], "/grpc.health.v1.*": [meshes.GATEWAY_ID]},
        drain_seconds=DRAIN_SECONDS,
    )
    (tmp_path / "model").mkdir()
    running = asyncio.create_task(serve(server, service.build(server, tmp_path / "model")))
    credentials = tls.channel_credentials(meshes.identity(tmp_path, "gateway"))
    async with asyncio.timeout(30), open_channel(server.listen, credentials, part=service.name) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=service.full_name), wait_for_ready=True)
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        await service.call(channel)
        hang.begin()
        for error in await asyncio.gather(*(meshes.refused(service.call(channel)) for _ in range(3))):
            assert (type(error), error.reason) == (errors.Unavailable, "MODEL_FAILED")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await running == 1
