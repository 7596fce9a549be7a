"""Zero-shot by an encoder compares the vectors that sentence-transformers makes with all that its files say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from torch import nn

from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.runtime.config import ConfigError
from meshgate.v1 import classification_pb2 as pb
from meshgate.v1 import models_pb2 as pb_models
from services.classification.app import App
from services.classification.config import (
    ClassificationConfig,
    ClassifierConfig,
    CustomConfig,
    EngineConfig,
    ZeroShotConfig,
)
from tests.support.fixtures.classification_service import of, running
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier

TEXTS = ("Hello World", "an ÜBER text, of several words, which is long enough to be cut " * 3, "x")
LABELS = ("sport", "ÜBER all", "one two")
KIND = "sentence_transformers.models."
SCALE = 7.0


def written(folder: Path, name: str, **said: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(said))


def modules(folder: Path, *after: str) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"{n}_{kind}", kind) for n, kind in enumerate(after, 2))]
    listed = [{"idx": n, "name": str(n), "path": path, "type": KIND + kind} for n, (path, kind) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(listed))
    written(folder, "1_Pooling/config.json", word_embedding_dimension=32, pooling_mode_mean_tokens=True)


def pooled(mode: str) -> Callable[[Path], None]:
    return lambda folder: written(folder, "1_Pooling/config.json", embedding_dimension=32, pooling_mode=mode)


def dense(folder: Path) -> None:
    modules(folder, "Dense", "Normalize")
    (folder / "2_Dense").mkdir()
    layer: Any = Dense(32, 12, activation_function=nn.Tanh())
    layer.save(str(folder / "2_Dense"))


def small(folder: Path) -> None:
    said = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(said | {"normalizer": None}))
    written(folder, "sentence_bert_config.json", do_lower_case=True, max_seq_length=64)


def cut(folder: Path) -> None:
    written(folder, "sentence_bert_config.json", do_lower_case=False, max_seq_length=24)


def prompted(folder: Path) -> None:
    said = {"prompts": {"query": "find this: "}, "default_prompt_name": "query"}
    written(folder, "config_sentence_transformers.json", **said)


def narrow(folder: Path) -> None:
    written(folder, "config_sentence_transformers.json", prompts={}, truncate_dim=8)


SAID: dict[str, tuple[Callable[[Path], None], ...]] = {
    **{mode: (pooled(mode),) for mode in ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")},
    "a layer after it": (dense,),
    "a layer after the last token": (dense, pooled("lasttoken")),
    "small letters": (small,),
    "a length": (cut,),
    "a length and the first token": (cut, pooled("cls")),
    "a prompt": (prompted,),
    "a prompt and the largest numbers": (prompted, pooled("max")),
    "fewer dimensions": (narrow,),
    "fewer dimensions of the last token": (narrow, pooled("lasttoken")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "encoder").mkdir()
    build_tiny_bert(tmp_path / "encoder")
    modules(tmp_path / "encoder")
    written(tmp_path / "encoder", "config_sentence_transformers.json", prompts={})
    return tmp_path / "encoder"


def configured(folder: Path) -> ClassificationConfig:
    nowhere = tls.TlsConfig(certificate=folder, key=folder, ca=folder)
    named = folder.parent / "named"
    named.mkdir()
    build_tiny_classifier(named)
    return ClassificationConfig(
        server=ServerConfig(tls=nowhere),
        classifiers=(ClassifierConfig(source=str(named), name="m"),),
        zero_shot=ZeroShotConfig(source=str(folder), name="any", scale=SCALE),
        custom=CustomConfig(directory=folder.parent / "classifiers"),
        engine=EngineConfig(dtype="float32", device="cpu"),
    )


@pytest.mark.parametrize("changes", SAID.values(), ids=list(SAID))
async def test_labels_are_as_near_as_sentence_transformers_has_them(
    folder: Path, changes: tuple[Callable[[Path], None], ...]
) -> None:
    for change in changes:
        change(folder)
    theirs = SentenceTransformer(str(folder), device="cpu")
    wanted = SCALE * theirs.similarity(theirs.encode(list(TEXTS)), theirs.encode(list(LABELS)))
    request = pb.ClassifyRequest(
        inputs=[pb.ClassificationInput(text=text) for text in TEXTS],
        options=pb.ClassifyOptions(score_function=pb.SCORE_FUNCTION_NONE, truncate=True),
    )
    request.candidate_labels.labels.extend(pb.CandidateLabel(name=label) for label in LABELS)
    async with running(configured(folder)) as servicer:
        reply = await servicer.Classify(request, of())
    scores = [{each.label: each.score for each in result.labels} for result in reply.results]
    made = np.array([[row[label] for label in LABELS] for row in scores])
    np.testing.assert_allclose(made, wanted.numpy(), atol=1e-4)


async def test_a_module_that_is_not_served_stops_the_start(folder: Path) -> None:
    modules(folder, "WordWeights")
    with pytest.raises(ConfigError, match=r"^zero_shot\.source: .*WordWeights"):
        async with running(configured(folder)):
            pass


async def test_what_a_default_prompt_adds_to_each_text_is_listed(folder: Path) -> None:
    prompted(folder)
    app = App(configured(folder))
    await app.start()
    try:
        [card] = [each for each in app._slot.get().cards if pb_models.CAPABILITY_ZERO_SHOT in each.capabilities]
    finally:
        await app.stop(1)
    assert card.default_prompt_tokens > 2
