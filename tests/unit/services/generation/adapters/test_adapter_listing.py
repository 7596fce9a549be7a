"""Which adapters a tenant is told of: its own and those for all, not too many, and what if they can't be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import DeadlineExceeded, Internal, MeshError
from meshgate.rpc import metadata
from meshgate.v1 import models_pb2 as pb
from services.generation.adapters import adapter_store, loaded_adapters
from services.generation.adapters.adapter_store import AdapterNames, AdapterStore
from services.generation.adapters.loaded_adapters import LoadedAdapters
from services.generation.app import build
from services.generation.config import GenerationConfig
from services.generation.serving.listing import GenerationModelServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.llama import build_tiny_llama


def made(root: Path, *names: str) -> AdapterStore:
    """A shelf of folders `tenant/name`, or `/name` for all."""
    for tenant, _, name in (each.partition("/") for each in names):
        (root / "own" / tenant / name if tenant else root / "shared" / name).mkdir(parents=True)
    for folder in ("own", "shared"):
        (root / folder).mkdir(exist_ok=True)
    return AdapterStore(root / "own", root / "shared", 1)


def test_it_is_its_own_and_those_for_all(tmp_path: Path) -> None:
    found = made(tmp_path, "a/z", "a/m", "b/secret", "/m", "/all")
    assert found.names("a") == AdapterNames(["all", "m", "z"], False)
    assert found.names("b") == AdapterNames(["all", "m", "secret"], False)
    assert found.names("c") == found.names("") == AdapterNames(["all", "m"], False)


@pytest.mark.parametrize("tenant", ["..", ".", "a/../b", "b/", "%62", "B"])
def test_no_name_of_a_tenant_leads_to_another(tmp_path: Path, tenant: str) -> None:
    assert made(tmp_path, "b/secret").names(tenant) == AdapterNames([], False)


def test_only_what_can_be_named_is_listed(tmp_path: Path) -> None:
    found = made(tmp_path, "a/good", "a/.hidden", "a/with space", "b/secret")
    (tmp_path / "own" / "a" / "file").write_text("")
    (tmp_path / "own" / "a" / "link").symlink_to(tmp_path / "own" / "b" / "secret")
    (tmp_path / "own" / "linked").symlink_to(tmp_path / "own" / "b")
    assert found.names("a") == AdapterNames(["good"], False)
    assert found.names("linked") == AdapterNames([], False)


def test_too_many_are_cut_those_for_all_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_store, "LISTED", 3)
    found = made(tmp_path, "a/y", "a/z", "/b", "/c")
    assert found.names("a") == AdapterNames(["b", "y", "z"], True)
    assert found.names("other") == AdapterNames(["b", "c"], False)


def test_no_more_than_so_many_entries_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_store, "_LOOKED", 5)
    found = made(tmp_path, *(f"a/{number}" for number in range(20)))
    names = found.names("a")
    assert (len(names.names), names.more) == (5, True)


def test_a_folder_that_cant_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(tmp_path, "a/b")

    def broken(_: int) -> Any:
        raise OSError(5, "secret")

    monkeypatch.setattr(os, "scandir", broken)
    with pytest.raises(Internal, match="EIO"):
        found.names("a")


def test_bounds_are_as_documented() -> None:
    text = (Path(__file__).parents[5] / "docs" / "howto" / "serve-lora-adapters.md").read_text()
    assert f"up to {adapter_store.LISTED} of a model" in text
    assert f"the first {adapter_store._LOOKED:,} entries" in text


async def test_a_disk_that_hangs_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    class Hanging(AdapterStore):
        def names(self, tenant: str) -> AdapterNames:
            go_on.wait(20)
            return AdapterNames([], False)

    monkeypatch.setattr(loaded_adapters, "_LIST_SECONDS", 0.05)
    unfitted: Any = None
    adapters = LoadedAdapters(Hanging(tmp_path, None, 1), unfitted, memory=1, per_tenant=1)
    with pytest.raises(DeadlineExceeded):
        await adapters.names("a")
    go_on.set()
    adapters.close()


async def listed(place: Any, *sent: tuple[str, str]) -> Mapping[str, tuple[list[str], bool]]:
    context: Any = FakeContext(*sent)
    reply = await GenerationModelServicer(place).ListModels(pb.ListModelsRequest(), context)
    return {model.name: (list(model.adapters), model.more_adapters) for model in reply.models}


async def test_models_say_which_and_whether_there_may_be_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a/mine", "/all")
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    section = {"source": str(build_tiny_llama(tmp_path / "tiny")), "dtype": "float32", "device": "cpu"}
    with_some = {"adapters": {"directory": tmp_path / "own", "shared": tmp_path / "shared"}}
    models = {"model": {**section, "name": "some", **with_some}, "models": [{**section, "name": "none"}]}
    app = build(GenerationConfig.model_validate({"server": {"tls": tls}, "engine": {"threads": 1}, **models}))
    await app.start()
    try:
        assert await listed(app._slot, (metadata.TENANT, "a")) == {
            "some": (["all", "mine"], False),
            "none": ([], False),
        }
        assert await listed(app._slot) == {"some": ([], True), "none": ([], False)}, "who is nobody is told no names"

        async def failing(*_: object) -> AdapterNames:
            raise MeshError("no")

        monkeypatch.setattr(LoadedAdapters, "names", failing)
        assert (await listed(app._slot, (metadata.TENANT, "a")))["some"] == ([], True)
    finally:
        await app.stop(0)
