"""Models that come, go and change behind a gateway, over real mutual TLS: no call fails, and no alias gets past a table
of permissions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgate import errors
from meshgate.runtime import config
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import embedding_pb2_grpc, models_pb2, models_pb2_grpc
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig
from tests.support.network import mesh as meshes
from tests.tinymodels.bert import build_tiny_bert

POLICY = {
    "tenants": {"acme": {"models": ["open"]}, "rich": {"models": ["*"], "defaults": {"embedding": "secret"}}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


def write(file: Path, folder: Path, opened: tuple[str, ...], closed: tuple[str, ...], most: int = 64) -> None:
    """`open`, the default, and `closed`, with these aliases."""
    text = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n'
    for section, name, aliases in (("[model]", "open", opened), ("[[models]]", "closed", closed)):
        text += (
            f'{section}\nsource = "{folder}"\nname = "{name}"\naliases = {list(aliases)}\nmax_input_tokens = {most}\n'
        )
    file.write_text(text)


@pytest.fixture
def file(tmp_path: Path, folder: Path) -> Path:
    path = tmp_path / "embedding.toml"
    write(path, folder, ("small",), ("secret",))
    return path


@pytest.fixture
async def app(file: Path) -> AsyncIterator[App]:
    yield App(config.load(file, EmbeddingConfig), file)


async def take(app: App) -> None:
    assert app._watcher is not None
    await app._watcher.look()


async def test_a_swap_under_load_fails_no_call(app: App, file: Path, folder: Path, tmp_path: Path) -> None:
    async with meshes.mesh(tmp_path, {"embedding": app}, policy=POLICY) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        swapped = asyncio.Event()
        old = app._slot.get().default.model

        async def caller(name: str) -> int:
            after = calls = 0
            while after < 3:
                after += swapped.is_set()
                reply = await stub.Embed(pb.EmbedRequest(model=name, inputs=["hello"]), metadata=mesh.auth())
                assert reply.model == "open"
                calls += 1
            return calls

        callers = asyncio.gather(*(caller(name) for name in ("", "small", "open") * 2))
        write(file, folder, ("small",), ("secret",), most=32)
        await take(app)
        swapped.set()
        assert sum(await callers) >= 18
        assert app._slot.get().default.model is not old


async def test_an_alias_is_held_to_the_models_own_name(app: App, file: Path, folder: Path, tmp_path: Path) -> None:
    async with meshes.mesh(tmp_path, {"embedding": app}, policy=POLICY) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)

        async def embed(name: str) -> str:
            reply = await stub.Embed(pb.EmbedRequest(model=name, inputs=["hello"]), metadata=mesh.auth())
            return str(reply.model)

        assert [await embed(name) for name in ("", "small", "open")] == ["open"] * 3
        for name in ("secret", "closed"):
            error = await meshes.refused(embed(name))
            assert (type(error), error.reason) == (errors.PermissionDenied, "MODEL_NOT_ALLOWED")
            assert mesh.record_of(error)["model"] == "closed"
        write(file, folder, ("secret",), ("small",))  # the names of each are the other's now
        await take(app)
        assert await embed("small") == "open", "the gateway had resolved the name, and the service resolved it again"


async def test_a_tenant_gets_its_own_default_and_sees_it_as_the_default(app: App, tmp_path: Path) -> None:
    async with meshes.mesh(tmp_path, {"embedding": app}, policy=POLICY) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        listing: Any = models_pb2_grpc.ModelServiceStub(channel)
        for tenant, default in (("acme", "open"), ("rich", "closed")):
            metadata = mesh.auth(mesh.token(tenant=tenant))
            reply = await stub.Embed(pb.EmbedRequest(inputs=["hello"]), metadata=metadata)
            assert reply.model == default
            models = (await listing.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)).models
            assert [model.name for model in models if model.default] == [default]
