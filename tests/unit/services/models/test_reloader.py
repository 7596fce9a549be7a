"""Several models in one service, and how they change while it serves: by what its configuration file says."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from meshgate.errors import InvalidArgument, NotFound, Unavailable
from meshgate.runtime import config
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import models_pb2
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig
from services.embedding.servicer import EmbeddingServicer
from services.models.config_watcher import ConfigWatcher
from services.models.listing import ModelServicer
from services.sentence_transformers.model import EmbeddingModel
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert

SERVER = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n'


def model(folder: Path, name: str, alias: str, section: str = "[model]") -> str:
    return (
        f'{section}\nsource = "{folder}"\nname = "{name}"\naliases = ["{alias}"]\ndtype = "float32"\ndevice = "cpu"\n'
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models whose vectors differ."""
    old, new = (build_tiny_bert(tmp_path_factory.mktemp(name)) for name in ("old", "new"))
    weights = load_file(new / "model.safetensors")
    save_file({name: torch.flip(each, [0]) for name, each in weights.items()}, new / "model.safetensors")
    return old, new


@pytest.fixture
def file(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    path = tmp_path / "embedding.toml"
    path.write_text(SERVER + model(folders[0], "one", "main"))
    return path


@pytest.fixture
async def app(file: Path) -> AsyncIterator[App]:
    made = App(config.load(file, EmbeddingConfig), file)
    await made.start()
    yield made
    await made.stop(5)


async def embed(app: App, name: str = "", *resolved: tuple[str, bytes]) -> pb.EmbedResponse:
    context: Any = FakeContext(*resolved)
    return await EmbeddingServicer(app._slot).Embed(pb.EmbedRequest(model=name, inputs=["hello"]), context)


async def look(app: App) -> None:
    assert app._watcher is not None
    await app._watcher.look()


def replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(SERVER + text)
    fresh.rename(file)


async def test_a_swap_under_load_fails_no_call_and_frees_the_old_model(
    app: App, file: Path, folders: tuple[Path, Path]
) -> None:
    before = (await embed(app)).embeddings[0].floats.values[0]
    run: Any = app._slot.get().default.model._hosted.run
    old = [
        weakref.ref(app._slot.get().default.model),
        weakref.ref(run.args[0]),
        weakref.ref(run.args[0].encoder._module),
    ]
    del run
    swapped, answers = asyncio.Event(), list[float]()

    async def caller() -> None:
        after = 0
        while after < 5:
            after += swapped.is_set()
            answers.append((await embed(app, "main")).embeddings[0].floats.values[0])

    callers = asyncio.gather(*(caller() for _ in range(8)))
    replace(file, model(folders[1], "one", "main"))
    await look(app)
    swapped.set()
    await callers
    assert set(answers[-8:]) != {before}
    assert before in answers
    gc.collect()
    assert [each() for each in old] == [None, None, None]


async def test_a_call_in_hand_ends_on_the_model_that_it_began_with(
    app: App, file: Path, folders: tuple[Path, Path]
) -> None:
    before = (await embed(app)).embeddings[0].floats.values[0]
    go_on = asyncio.Event()

    async def sent() -> AsyncIterator[pb.EmbedStreamRequest]:
        yield pb.EmbedStreamRequest(request=pb.EmbedRequest(model="main", inputs=["hello"]))
        await go_on.wait()
        yield pb.EmbedStreamRequest(request=pb.EmbedRequest(inputs=["hello"]))

    context: Any = FakeContext()
    stream = EmbeddingServicer(app._slot).EmbedStream(sent(), context)
    got = [(await anext(stream)).response.embeddings[0].floats.values[0]]
    replace(file, model(folders[1], "two", "other"))
    await look(app)
    go_on.set()
    got += [each.response.embeddings[0].floats.values[0] async for each in stream]
    assert got == [pytest.approx(before)] * 2
    assert (await embed(app)).model == "two"


async def test_models_come_and_go_and_those_that_stay_are_not_loaded_again(
    app: App, file: Path, folders: tuple[Path, Path]
) -> None:
    kept = app._slot.get().default.model
    both = model(folders[0], "one", "main") + model(folders[1], "two", "second", "[[models]]")
    replace(file, both)
    await look(app)
    assert app._slot.get().default.model is kept
    assert [(await embed(app, name)).model for name in ("", "one", "main", "two", "second")] == ["one"] * 3 + [
        "two"
    ] * 2
    replace(file, model(folders[0], "one", "main"))
    await look(app)
    assert app._slot.get().default.model is kept
    with pytest.raises(NotFound):
        await embed(app, "second")


async def test_the_name_that_the_gateway_resolved_stands_in_place_of_an_alias(
    app: App, file: Path, folders: tuple[Path, Path]
) -> None:
    replace(file, model(folders[0], "one", "main") + model(folders[1], "two", "second", "[[models]]"))
    await look(app)
    assert (await embed(app, "second", ("x-meshgate-model-bin", b"one"))).model == "one"
    assert (await embed(app, "", ("x-meshgate-model-bin", b"two"))).model == "two"
    with pytest.raises(InvalidArgument):
        await embed(app, "x" * 257)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (model(Path("/nowhere"), "one", "main"), "model.source: /nowhere: no such directory"),
        ("[model]\nnonsense = 1\n", "model.nonsense: unknown key; known: source, name"),
        ("[model", "not valid TOML"),
        ('[model]\nname = "a"\naliases = ["a"]\n', "names and aliases of models must differ from each other"),
    ],
    ids=["absent", "key", "toml", "twice"],
)
async def test_what_can_t_be_loaded_leaves_the_old_and_says_so(
    app: App, file: Path, caplog: pytest.LogCaptureFixture, text: str, said: str
) -> None:
    kept = app._slot.get()
    replace(file, text)
    with caplog.at_level(logging.ERROR):
        await look(app)
    assert app._slot.get() is kept
    assert said in caplog.text
    assert "Traceback" not in caplog.text
    assert (await embed(app, "main")).model == "one"


async def test_a_model_that_fails_leaves_the_old_even_where_another_loaded(
    app: App, file: Path, folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    replace(file, model(folders[1], "one", "main") + model(Path("/nowhere"), "two", "second", "[[models]]"))
    kept = app._slot.get()
    await look(app)
    assert app._slot.get() is kept
    assert "models.0.source" in caplog.text


async def test_the_file_is_watched(file: Path, folders: tuple[Path, Path]) -> None:
    taken: asyncio.Queue[EmbeddingConfig] = asyncio.Queue()
    watch = ConfigWatcher(file, EmbeddingConfig, taken.put, seconds=0.01)
    watch.start()
    replace(file, model(folders[1], "two", "main"))
    assert (await asyncio.wait_for(taken.get(), 10)).model.name == "two"
    await watch.stop()
    assert taken.empty()


async def test_nothing_is_listed_before_all_are_warm(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App(config.load(file, EmbeddingConfig))
    servicer, context = ModelServicer(lambda: app._slot.get().cards), FakeContext()
    with pytest.raises(Unavailable) as error:
        await servicer.ListModels(models_pb2.ListModelsRequest(), context)  # type: ignore[arg-type]
    assert error.value.reason == "STARTING"
    warmed: list[Any] = []
    warm_up = EmbeddingModel.warm_up

    def noted(self: EmbeddingModel) -> None:
        warmed.append(app._slot.served)
        warm_up(self)

    monkeypatch.setattr(EmbeddingModel, "warm_up", noted)
    await app.start()
    [card] = (await servicer.ListModels(models_pb2.ListModelsRequest(), context)).models  # type: ignore[arg-type]
    assert warmed == [None]
    assert (card.name, card.dtype, card.device, card.default) == ("one", "float32", "cpu", True)
    assert card.loaded_at.seconds > 0
    assert not card.HasField("quality")
    await app.stop(1)
