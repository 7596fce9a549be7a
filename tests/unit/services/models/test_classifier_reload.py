"""Classifiers that come and go while the service serves, by what its configuration file says."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import NotFound
from meshgate.runtime import config
from meshgate.v1 import classification_pb2 as pb
from services.classification.app import App
from services.classification.config import ClassificationConfig
from services.classification.servicer import ClassificationServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier


def write(file: Path, models: Path, *names: str) -> None:
    text = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n'
    for name in names:
        text += f'[[classifiers]]\nsource = "{models / "classifier"}"\nname = "{name}"\naliases = ["{name}-alias"]\n'
    zero = f'[zero_shot]\nsource = "{models / "bert"}"\nmax_input_tokens = 64\n'
    file.write_text(text + zero + f'[custom]\ndirectory = "{models / "own"}"\n[engine]\ndevice = "cpu"\n')


async def classify(app: App, name: str, *resolved: tuple[str, bytes]) -> str:
    context: Any = FakeContext(*resolved)
    request = pb.ClassifyRequest(model=name, inputs=[pb.ClassificationInput(text="hello")])
    return (await ClassificationServicer(app._slot).Classify(request, context)).model


async def test_classifiers_change_under_load_and_the_old_are_freed(tmp_path: Path) -> None:
    for name, build in (("classifier", build_tiny_classifier), ("bert", build_tiny_bert)):
        build(tmp_path / name)
    file = tmp_path / "classification.toml"
    write(file, tmp_path, "one", "two")
    app = App(config.load(file, ClassificationConfig), file)
    await app.start()
    assert app._watcher is not None
    kept = app._slot.get().models.classifiers["two"][1]
    old = weakref.ref(app._slot.get().models.classifiers["one"][1])
    swapped = asyncio.Event()

    async def caller() -> None:
        after = 0
        while after < 3:
            after += swapped.is_set()
            assert await classify(app, "two-alias") == "two"

    callers = asyncio.gather(*(caller() for _ in range(6)))
    write(file, tmp_path, "two", "three")
    await app._watcher.look()
    swapped.set()
    await callers
    assert app._slot.get().models.classifiers["two"][1] is kept
    assert [await classify(app, name) for name in ("", "three-alias")] == ["two", "three"]
    assert await classify(app, "two", ("x-meshgate-model-bin", b"three")) == "three"
    with pytest.raises(NotFound):
        await classify(app, "one")
    gc.collect()
    assert old() is None
    await app.stop(5)
