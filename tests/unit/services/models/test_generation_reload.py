"""Several generation models, each on its own engine: swapped while they serve, and nothing of the old is left."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import InvalidArgument, NotFound
from meshgate.runtime import config
from meshgate.runtime.config import ConfigError
from meshgate.v1 import generation_pb2 as pb
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.serving.servicer import GenerationServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.llama import build_tiny_llama

SERVER = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n[engine]\nmax_batch = 4\nthreads = 1\n'


def model(folder: Path, name: str, alias: str, section: str = "[model]") -> str:
    return (
        f'{section}\nsource = "{folder}"\nname = "{name}"\naliases = ["{alias}"]\ndtype = "float32"\ndevice = "cpu"\n'
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "generation.toml"
    write(path, model(folder, "one", "main"))
    return path


@pytest.fixture
async def app(file: Path) -> AsyncIterator[App]:
    made = build(config.load(file, GenerationConfig), path=file)
    await made.start()
    yield made
    await made.stop(5)


async def generate(app: App, name: str = "", *resolved: tuple[str, bytes]) -> pb.GenerateResponse:
    context: Any = FakeContext(*resolved)
    request = pb.GenerateRequest(model=name, prompt="hello", max_output_tokens=8)
    return await GenerationServicer(app._slot).Generate(request, context)


def write(file: Path, text: str) -> None:
    file.write_text(SERVER + text)


async def look(app: App, file: Path, text: str) -> None:
    write(file, text)
    assert app._watcher is not None
    await app._watcher.look()


def engines() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "generation"]


async def one_engine() -> None:
    """Waits until what was replaced has ended."""
    async with asyncio.timeout(20):
        while len(engines()) > 1:
            gc.collect()
            await asyncio.to_thread(engines()[0].join, 0.01)


async def test_a_swap_under_load_fails_no_call_and_leaves_nothing_of_the_old(
    app: App, file: Path, folder: Path
) -> None:
    finaliser = weakref.ref(app._slot.get().default.finaliser)
    [old] = engines()
    swapped, answers = asyncio.Event(), list[str]()

    async def caller() -> None:
        after = 0
        while after < 3:
            after += swapped.is_set()
            answers.append((await generate(app, "main")).model)

    callers = asyncio.gather(*(caller() for _ in range(6)))
    await look(app, file, model(folder, "two", "main"))
    swapped.set()
    await callers
    assert set(answers) == {"one", "two"}
    assert set(answers[-6:]) == {"two"}
    await one_engine()
    assert finaliser() is None
    assert not old.is_alive()


async def test_a_stream_ends_on_the_model_that_it_began_with(app: App, file: Path, folder: Path) -> None:
    context: Any = FakeContext()
    asked = pb.GenerateStreamRequest(request=pb.GenerateRequest(prompt="hello", max_output_tokens=100))
    stream = GenerationServicer(app._slot).GenerateStream(asked, context)
    assert (await anext(stream)).model == "one"
    await look(app, file, model(folder, "two", "main"))
    assert (await generate(app)).model == "two"
    last = [each async for each in stream][-1]
    assert last.usage.output_tokens > 0
    del stream
    await one_engine()


async def test_several_are_served_by_name_and_the_gateways_word_counts_first(
    app: App, file: Path, folder: Path
) -> None:
    await look(app, file, model(folder, "one", "main") + model(folder, "two", "second", "[[models]]"))
    assert [(await generate(app, name)).model for name in ("", "main", "two", "second")] == ["one", "one", "two", "two"]
    assert (await generate(app, "second", ("x-meshgate-model-bin", b"one"))).model == "one"
    with pytest.raises(NotFound):
        await generate(app, "third")
    context: Any = FakeContext()
    asked = pb.GenerateStreamRequest(request=pb.GenerateRequest(model="x" * 257, prompt="hello"))
    with pytest.raises(InvalidArgument) as error:
        await anext(GenerationServicer(app._slot).GenerateStream(asked, context))
    assert [each.field for each in error.value.violations] == ["request.model"]


async def test_a_model_that_fails_leaves_the_old_and_no_engine_of_another(
    app: App, file: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = app._slot.get()
    bad = model(Path("/nowhere"), "three", "third", "[[models]]")
    await look(app, file, model(folder, "two", "second") + bad)
    assert app._slot.get() is kept
    assert "models.0.source: /nowhere: no such directory" in caplog.text
    await one_engine()
    assert (await generate(app)).model == "one"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
async def test_a_damaged_file_stops_the_start_with_one_line(
    folder: Path, file: Path, tmp_path: Path, name: str
) -> None:
    broken = build_tiny_llama(tmp_path / "broken")
    (broken / name).write_bytes((broken / name).read_bytes()[:20])
    write(file, model(broken, "one", "main"))
    app = build(config.load(file, GenerationConfig))
    with pytest.raises(ConfigError) as error:
        await app.start()
    assert str(error.value).startswith("model.source: ")
    assert "\n" not in str(error.value)
    await app.stop(0)
    assert not engines()


def test_parts_and_several_models_do_not_go_together(file: Path, folder: Path) -> None:
    text = SERVER.replace("max_batch = 4", "tensor_parallel = 2")
    file.write_text(text + model(folder, "one", "a") + model(folder, "two", "b", "[[models]]"))
    with pytest.raises(ConfigError, match="tensor_parallel"):
        config.load(file, GenerationConfig)
