"""Every service serves a model in eight bits, and its list of models says so, with the quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch._dynamo.utils import counters

from meshgate.cli.commands import embed
from meshgate.runtime import config as files
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import models_pb2
from services.classification.app import App as Classification
from services.classification.config import ClassificationConfig
from services.embedding.app import App as Embedding
from services.embedding.config import EmbeddingConfig
from services.embedding.servicer import EmbeddingServicer
from services.generation.app import build
from services.generation.config import GenerationConfig
from services.models.listing import ModelServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier, build_tiny_tagger
from tests.tinymodels.llama import build_tiny_llama

SERVER = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path / "home"))


def read(tmp_path: Path, kind: Any, text: str) -> Any:
    path = tmp_path / "service.toml"
    path.write_text(SERVER + text)
    return files.load(path, kind)


async def cards(app: Any) -> list[models_pb2.Model]:
    await app.start()
    try:
        context: Any = FakeContext()
        reply = await ModelServicer(lambda: app._slot.get().cards).ListModels(models_pb2.ListModelsRequest(), context)
        return list(reply.models)
    finally:
        await app.stop(1)


def section(source: Path, kind: str, **more: str) -> str:
    lines = {"source": str(source), "name": source.name, "quantisation": "int8", **more}
    return f"{kind}\n" + "".join(f'{key} = "{value}"\n' for key, value in lines.items())


def check(card: models_pb2.Model, lowest: float) -> None:
    assert card.quantisation == "int8"
    assert lowest < card.quality <= 1
    row = [str(cell) for cell in embed._described(card)]
    assert f"{card.dtype}, int8 on cpu" in row
    assert f"{card.quality:.4f}" in row


async def test_generation(tmp_path: Path) -> None:
    source = build_tiny_llama(tmp_path / "llama")
    [card] = await cards(build(read(tmp_path, GenerationConfig, section(source, "[model]", device="cpu"))))
    check(card, 0.6)


async def test_embedding_beside_the_same_model_unquantised(tmp_path: Path) -> None:
    source = build_tiny_bert(tmp_path / "bert")
    text = section(source, "[model]", device="cpu") + section(
        source, "[[models]]", device="cpu", name="whole", quantisation="none"
    )
    quantised, whole = await cards(Embedding(read(tmp_path, EmbeddingConfig, text)))
    check(quantised, 0.99)
    assert not whole.quantisation
    assert not whole.HasField("quality")


async def test_classification_of_every_kind(tmp_path: Path) -> None:
    built = [build_tiny_classifier(tmp_path / "classifier"), build_tiny_tagger(tmp_path / "tagger")]
    text = "".join(section(source, "[[classifiers]]") for source in built)
    text += '[[classifiers]]\nsource = "shipped:sentiment"\nname = "sentiment"\nquantisation = "int8"\n'
    text += section(build_tiny_bert(tmp_path / "bert"), "[zero_shot]") + "max_input_tokens = 64\n"
    text += f'[custom]\ndirectory = "{tmp_path / "own"}"\n[engine]\ndevice = "cpu"\n'
    found = await cards(Classification(read(tmp_path, ClassificationConfig, text)))
    assert [card.name for card in found] == ["classifier", "tagger", "sentiment", "bert"]
    for card in found:
        check(card, 0.9)


@pytest.mark.timeout(400)
async def test_a_compiled_encoder_says_what_it_said_and_no_caller_waits_for_a_compiler(tmp_path: Path) -> None:
    source = build_tiny_bert(tmp_path / "bert")
    text = "".join(
        f'{kind}\nsource = "{source}"\nname = "{name}"\ndtype = "float32"\ndevice = "cpu"\ncompile = {name}\n'
        for kind, name in (("[model]", "true"), ("[[models]]", "false"))
    )
    app = Embedding(read(tmp_path, EmbeddingConfig, text))
    await app.start()
    try:
        compiled = graphs()
        assert compiled > 0
        for texts in (["hello"], ["hello", "a much longer one", "x"]):
            made, wanted = [await vectors(app, name, texts) for name in ("true", "false")]
            np.testing.assert_allclose(made, wanted, atol=1e-5)
        assert graphs() == compiled
    finally:
        await app.stop(1)


def graphs() -> int:
    """How many Dynamo has compiled in this process."""
    return int(counters["stats"]["unique_graphs"])


async def vectors(app: Embedding, name: str, texts: list[str]) -> Any:
    context: Any = FakeContext()
    reply = await EmbeddingServicer(app._slot).Embed(pb.EmbedRequest(model=name, inputs=texts), context)
    return np.array([each.floats.values for each in reply.embeddings])
