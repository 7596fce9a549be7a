"""Calls that name an adapter, through the servicer: whose it is, where it comes from, and what it does."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from meshgate.errors import InvalidArgument, NotFound, Unimplemented
from meshgate.rpc import metadata
from meshgate.runtime.config import ConfigError
from meshgate.v1 import generation_pb2 as pb
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.serving.servicer import GenerationServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.lora import build_lora, write_config


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build_lora(tmp_path / "own" / "acme" / "mine", 1)
    build_lora(tmp_path / "own" / "acme" / "bad", 1, use_dora=True)
    build_lora(tmp_path / "shared" / "ours", 2)
    return tmp_path


def configuration(directory: Path, adapters: Any, **engine: int) -> GenerationConfig:
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    model = {"source": str(directory), "name": "tiny", "dtype": "float32", "device": "cpu", "adapters": adapters}
    engine = {"max_batch": 4, "threads": 1} | engine
    return GenerationConfig.model_validate({"server": {"tls": tls}, "model": model, "engine": engine})


def places(root: Path, **more: Any) -> dict[str, Any]:
    return {"directory": root / "own", "shared": root / "shared", **more}


@pytest_asyncio.fixture
async def app(directory: Path, root: Path) -> AsyncIterator[App]:
    built = build(configuration(directory, places(root)))
    await built.start()
    yield built
    await built.stop(0)


def request(adapter: str, **more: Any) -> pb.GenerateRequest:
    greedy = pb.Sampling(temperature=0)
    return pb.GenerateRequest(prompt="hello", max_output_tokens=12, sampling=greedy, adapter=adapter, **more)


async def said(app: App, tenant: str, adapter: str) -> list[int]:
    context: Any = FakeContext((metadata.TENANT, tenant))
    reply = await GenerationServicer(app._slot).Generate(request(adapter), context)
    return list(reply.candidates[0].token_ids)


async def test_only_the_owner_may_name_it(app: App) -> None:
    plain, mine, ours = [await said(app, "acme", name) for name in ("", "mine", "ours")]
    assert len({tuple(each) for each in (plain, mine, ours)}) == 3
    assert await said(app, "other", "ours") == ours
    for tenant, name in (("other", "mine"), ("acme", "none"), ("", "mine"), ("other", "../acme/mine")):
        with pytest.raises(NotFound) as refused:
            await said(app, tenant, name)
        assert (refused.value.reason, refused.value.message) == ("ADAPTER_NOT_FOUND", "no such adapter")
    assert await said(app, "acme", "") == plain


async def test_one_that_cant_be_used_is_named_where_it_stands_in_the_request(app: App) -> None:
    context: Any = FakeContext((metadata.TENANT, "acme"))
    service = GenerationServicer(app._slot)
    with pytest.raises(InvalidArgument) as refused:
        await service.Generate(request("bad"), context)
    assert [each.field for each in refused.value.violations] == ["adapter"]
    with pytest.raises(InvalidArgument) as refused:
        [_ async for _ in service.GenerateStream(pb.GenerateStreamRequest(request=request("bad")), context)]
    assert [each.field for each in refused.value.violations] == ["request.adapter"]
    assert refused.value.violations[0].description == "use_dora is not supported"
    assert app._slot.get().default.admission.candidates.held == 0


async def test_a_model_without_adapters_says_so(directory: Path) -> None:
    built = build(configuration(directory, None))
    await built.start()
    with pytest.raises(Unimplemented, match="adapter") as refused:
        await said(built, "acme", "mine")
    assert refused.value.reason == "FEATURE_UNAVAILABLE"
    await built.stop(0)


async def test_some_are_loaded_at_the_start(directory: Path, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        built = build(configuration(directory, places(root, preload=["acme/mine", "ours", "acme/bad", "other/none"])))
        await built.start()
    adapters = built._slot.get().default.adapters
    assert adapters is not None
    assert [(each.folder, each.name) for each in adapters._kept] == [("acme", "mine"), ("", "ours")]
    assert [record.message.split(": ")[1] for record in caplog.records] == ["acme/bad", "other/none"]
    write_config(root / "own" / "acme" / "bad")
    assert await said(built, "acme", "bad") == await said(built, "acme", "mine")
    await built.stop(0)


@pytest.mark.parametrize("name", ["directory", "shared"])
async def test_a_directory_that_is_not_there_ends_the_start(directory: Path, root: Path, name: str) -> None:
    built = build(configuration(directory, places(root) | {name: root / "none"}))
    with pytest.raises(ConfigError, match=rf"model\.adapters\.{name}: .*: no such directory"):
        await built.start()
    await built.stop(0)


def test_a_model_in_parts_has_none(directory: Path, root: Path) -> None:
    with pytest.raises(ValidationError, match="no adapters"):
        configuration(directory, places(root), tensor_parallel=2)
