"""What the generation service tells Prometheus of refused calls, and of prompts that it did not read anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import Internal, MeshError
from meshgate.rpc import metadata
from meshgate.v1 import generation_pb2 as pb
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.serving.refusal_counter import RefusalCounter
from services.generation.serving.servicer import GenerationServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.llama import build_tiny_llama


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    model = {"source": str(build_tiny_llama(tmp_path)), "name": "tiny", "dtype": "float32"}
    engine = {"max_batch": 2, "max_queue": 0, "threads": 1}
    built = build(GenerationConfig.model_validate({"server": {"tls": tls}, "model": model, "engine": engine}))
    await built.start()
    yield built
    await built.stop(0)


def servicer(app: App) -> GenerationServicer:
    return GenerationServicer(app._slot, app._refusals)


def told(app: App, name: str, **labels: str) -> float:
    """A sample as Prometheus would read it; 0 where there is none."""
    return app._metrics_server.registry.get_sample_value(name, labels) or 0.0


def refused(app: App, reason: str) -> float:
    return told(app, "meshgate_generation_refused_total", reason=reason)


def ask(**fields: Any) -> pb.GenerateRequest:
    defaults: dict[str, Any] = {"prompt": "hello", "max_output_tokens": 2}
    return pb.GenerateRequest(**(defaults | fields))


async def generate(app: App, request: pb.GenerateRequest, *sent: tuple[str, str]) -> pb.GenerateResponse:
    context: Any = FakeContext(*sent)
    return await servicer(app).Generate(request, context)


async def stream(app: App, request: pb.GenerateStreamRequest) -> None:
    context: Any = FakeContext()
    async for _ in servicer(app).GenerateStream(request, context):
        pass


async def test_refused_calls_are_counted_by_what_they_were_told(app: App) -> None:
    context: Any = FakeContext()
    for request in (ask(model="other"), ask(max_output_tokens=0), ask(adapter="mine")):
        with pytest.raises(MeshError):
            await generate(app, request)
    with pytest.raises(MeshError):
        await stream(app, pb.GenerateStreamRequest())
    with pytest.raises(MeshError):
        await servicer(app).CountTokens(pb.CountTokensRequest(prompt=""), context)
    assert dict(app._refusals.by_reason) == {"MODEL_NOT_FOUND": 1, "INVALID_ARGUMENT": 3, "FEATURE_UNAVAILABLE": 1}
    assert refused(app, "INVALID_ARGUMENT") == 3


async def test_who_finds_no_place_is_counted_and_who_is_served_is_not(app: App) -> None:
    await generate(app, ask())
    await stream(app, pb.GenerateStreamRequest(request=ask()))
    assert not app._refusals.by_reason
    entrance = app._slot.get().default.admission
    async with entrance.slots("another", 2, wait=False, remaining=None):
        with pytest.raises(MeshError):
            await generate(app, ask())
    assert refused(app, "OVERLOADED") == 1


def test_what_fails_once_it_is_in_was_not_refused() -> None:
    refusals = RefusalCounter()
    with pytest.raises(Internal), refusals.counted() as mark:
        mark.admitted()
        raise Internal("broken")
    assert not refusals.by_reason


async def test_tokens_that_were_not_read_anew_are_counted(app: App) -> None:
    request = ask(prompt=None, token_ids={"ids": [5 + place % 40 for place in range(70)]})
    cached = [
        (await generate(app, request, (metadata.TENANT, tenant))).usage.cached_input_tokens
        for tenant in ("a", "a", "b", "a")
    ]
    assert cached == [0, 64, 0, 64]
    assert told(app, "meshgate_generation_cached_tokens_total", model="tiny") == sum(cached)
