"""A classification service over tiny random models, without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from meshgate.rpc import metadata, tls
from meshgate.rpc.server import ServerConfig
from meshgate.v1 import classification_pb2 as pb
from services.classification.app import App
from services.classification.config import (
    ClassificationConfig,
    ClassifierConfig,
    CustomConfig,
    EngineConfig,
    ZeroShotConfig,
)
from services.classification.servicer import ClassificationServicer
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier, build_tiny_reranker, build_tiny_tagger
from tests.unit.context import FakeContext

Stop = Callable[[float], Awaitable[None]]

BUILT = {
    "bert": build_tiny_bert,
    "classifier": build_tiny_classifier,
    "tagger": build_tiny_tagger,
    "reranker": build_tiny_reranker,
}


def build(root: Path) -> Path:
    """All of the tiny models, each in its own folder."""
    for name, make in BUILT.items():
        (root / name).mkdir()
        make(root / name)
    return root


def configured(models: Path, home: Path, **custom: Any) -> ClassificationConfig:
    """A service with classifiers `colour`, `tagger` and `reranker`, zero-shot `any`, and a place for tenants' own."""
    nowhere = tls.TlsConfig(certificate=models, key=models, ca=models)
    return ClassificationConfig(
        server=ServerConfig(tls=nowhere),
        classifiers=(
            ClassifierConfig(source=str(models / "classifier"), name="colour", aliases=("hue",)),
            ClassifierConfig(source=str(models / "tagger"), name="tagger"),
            ClassifierConfig(source=str(models / "reranker"), name="reranker"),
        ),
        zero_shot=ZeroShotConfig(source=str(models / "bert"), name="any", max_input_tokens=64),
        custom=CustomConfig(directory=home / "classifiers", **custom),
        engine=EngineConfig(max_batch=8, dtype="float32", device="cpu"),
    )


@asynccontextmanager
async def running(config: ClassificationConfig) -> AsyncIterator[ClassificationServicer]:
    """The service of a configuration, from its start to its end."""
    async with stopping(config) as (servicer, _):
        yield servicer


@asynccontextmanager
async def stopping(config: ClassificationConfig) -> AsyncIterator[tuple[ClassificationServicer, Stop]]:
    """Likewise, and what stops it before."""
    app = App(config)
    await app.start()
    try:
        yield ClassificationServicer(app._place), app.stop
    finally:
        await app.stop(1)


def of(tenant: str = "acme") -> Any:
    """The context of a tenant's call."""
    return FakeContext((metadata.TENANT, tenant))


COLOURS = {
    "warm": ("aaa a", "a aaa", "aa aa aa", "aaaa", "a a a"),
    "cold": ("zzz z", "z zzz", "zz zz zz", "zzzz", "z z z"),
}


def examples(texts: dict[str, tuple[str, ...]] | None = None) -> list[pb.LabelledInput]:
    """Labelled texts; by default such as even random vectors tell apart."""
    return [pb.LabelledInput(text=text, label=label) for label, each in (texts or COLOURS).items() for text in each]


async def sent(*messages: pb.TrainClassifierRequest) -> AsyncIterator[pb.TrainClassifierRequest]:
    """A stream of requests."""
    for message in messages:
        yield message


async def train(
    servicer: ClassificationServicer,
    name: str = "mood",
    inputs: Iterable[pb.LabelledInput] | None = None,
    tenant: str = "acme",
    **options: Any,
) -> list[pb.TrainClassifierResponse]:
    """The replies of one training whose texts come in one message."""
    request = pb.TrainClassifierRequest(
        model=name, options=pb.TrainOptions(**options), inputs=examples() if inputs is None else inputs
    )
    return [reply async for reply in servicer.TrainClassifier(sent(request), of(tenant))]


async def classify(
    servicer: ClassificationServicer, model: str, *texts: str, tenant: str = "acme"
) -> pb.ClassifyResponse:
    """One call of a tenant."""
    inputs = [pb.ClassificationInput(text=text) for text in texts]
    return await servicer.Classify(pb.ClassifyRequest(model=model, inputs=inputs), of(tenant))
