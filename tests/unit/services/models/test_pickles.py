"""A pickle is refused wherever a configuration can name a model, and read where that model's section allows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from meshgate.runtime import config as files
from meshgate.runtime.config import ConfigError
from services.classification.app import App as Classification
from services.classification.config import ClassificationConfig
from services.embedding.app import App as Embedding
from services.embedding.config import EmbeddingConfig
from services.generation.app import App as Generation
from services.generation.config import GenerationConfig
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier, build_tiny_tagger
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.seq2seq import build_tiny_t5

SERVER = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n'
CPU = 'dtype = "float32"\ndevice = "cpu"\n'


class Place(NamedTuple):
    """Where a configuration names a model."""

    section: str
    key: str
    app: Callable[[Any], Any]
    kind: Any
    build: Callable[[Path], Path]
    settings: str = CPU


ENGINE = f"[engine]\n{CPU}"
PLACES = {
    "generation": Place("[model]", "model", Generation, GenerationConfig, build_tiny_llama),
    "encoder-decoder": Place("[model]", "model", Generation, GenerationConfig, build_tiny_t5),
    "embedding": Place("[model]", "model", Embedding, EmbeddingConfig, build_tiny_bert),
    "classifier": Place(
        "[[classifiers]]", "classifiers.0", Classification, ClassificationConfig, build_tiny_classifier, ENGINE
    ),
    "tagger": Place(
        "[[classifiers]]", "classifiers.0", Classification, ClassificationConfig, build_tiny_tagger, ENGINE
    ),
    "zero-shot": Place("[zero_shot]", "zero_shot", Classification, ClassificationConfig, build_tiny_bert, ENGINE),
}


def pickled(folder: Path) -> Path:
    """The same weights, as a pickle."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_a_pickle_is_refused_unless_its_section_allows_it(tmp_path: Path, place: Place) -> None:
    (tmp_path / "model").mkdir()
    folder = pickled(place.build(tmp_path / "model"))
    file = tmp_path / "service.toml"

    async def start(*more: str) -> None:
        section = "\n".join((place.section, f'source = "{folder}"', 'name = "m"', *more))
        file.write_text(f"{SERVER}{section}\n{place.settings}")
        app = place.app(files.load(file, place.kind))
        try:
            await app.start()
        finally:
            await app.stop(1)

    with pytest.raises(ConfigError) as refused:
        await start()
    assert str(refused.value).startswith(f"{place.key}.source: {folder}: pytorch_model.bin is a pickle")
    assert str(refused.value).endswith(f"or set {place.key}.allow_pickle")
    await start("allow_pickle = true")
