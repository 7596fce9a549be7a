"""What is wrong with an encoder's or a classifier's files, or is not served of their kind, ends the start with one line
that names the section and the cause.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from meshgate.runtime.config import ConfigError
from services.classification import model_worker as classification
from services.classification.config import ClassifierConfig, EngineConfig
from services.embedding import model_worker as embedding
from services.embedding.config import ModelConfig
from tests.kinds import kinds, tokenisers
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier, build_tiny_tagger

ENGINE = EngineConfig(device="cpu", dtype="float32")


def embeds(folder: Path) -> Any:
    return embedding.load(ModelConfig(source=str(folder), name="m", dtype="float32", device="cpu"), "models.3", 1)


def classifies(folder: Path) -> Any:
    return classification.load_classifier(ClassifierConfig(source=str(folder), name="m"), ENGINE, "models.3")


SERVICES: list[tuple[Callable[[Path], Path], Callable[[Path], Any]]] = [
    (build_tiny_bert, embeds),
    (build_tiny_classifier, classifies),
    (build_tiny_tagger, classifies),
]
every = pytest.mark.parametrize(("build", "load"), SERVICES, ids=["embedding", "classifier", "tagger"])


def refusal(load: Callable[[Path], Any], folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load(folder)
    said = str(refused.value)
    assert said.startswith("models.3.source: ")
    assert said.isprintable()
    return said


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    held = load_file(file)
    change(held)
    save_file(held, file, {"format": "pt"})


def config(folder: Path, **more: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def named(held: dict[str, torch.Tensor], end: str) -> str:
    return next(name for name in held if name.endswith(end))


@every
def test_a_tensor_that_is_missing_is_named(build: Any, load: Any, tmp_path: Path) -> None:
    build(tmp_path)
    tensors(tmp_path, lambda held: held.pop(named(held, "layer.1.output.dense.weight")))
    assert "layer.1.output.dense.weight" in refusal(load, tmp_path)


@every
def test_a_tensor_that_nothing_takes_is_named(build: Any, load: Any, tmp_path: Path) -> None:
    build(tmp_path)

    def add(held: dict[str, torch.Tensor]) -> None:
        name = named(held, "layer.1.output.dense.weight")
        held[name.replace("layer.1", "layer.2")] = held[name].clone()

    tensors(tmp_path, add)
    assert "layer.2.output.dense.weight" in refusal(load, tmp_path)


@every
def test_a_tensor_of_another_shape_is_named(build: Any, load: Any, tmp_path: Path) -> None:
    build(tmp_path)
    config(tmp_path, intermediate_size=48)
    assert "intermediate.dense" in refusal(load, tmp_path)


def test_a_head_that_is_missing_is_named(tmp_path: Path) -> None:
    build_tiny_classifier(tmp_path)
    tensors(tmp_path, lambda held: held.pop("classifier.weight"))
    assert "classifier.weight" in refusal(classifies, tmp_path)


def test_poolers_and_position_ids_may_differ_and_heads_beside_an_encoder(tmp_path: Path) -> None:
    build_tiny_bert(tmp_path)

    def change(held: dict[str, torch.Tensor]) -> None:
        for name in [name for name in held if "pooler" in name]:
            del held[name]
        held["embeddings.position_ids"] = torch.arange(64)
        held["cls.predictions.bias"] = torch.zeros(4)

    tensors(tmp_path, change)
    assert embeds(tmp_path).facts.dimensions == 32


@every
def test_a_folder_without_a_tokeniser_is_refused(build: Any, load: Any, tmp_path: Path) -> None:
    build(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert "tokeniser" in refusal(load, tmp_path)


@every
def test_a_vocabulary_that_is_larger_than_the_embeddings_is_refused(build: Any, load: Any, tmp_path: Path) -> None:
    build(tmp_path)
    tokeniser = tokenisers.read(tmp_path)
    tokeniser.add_tokens([f"added{number}" for number in range(9)])
    tokeniser.save_pretrained(tmp_path)
    assert "embeddings" in refusal(load, tmp_path)


@every
def test_weights_that_are_no_numbers_are_refused(build: Any, load: Any, tmp_path: Path) -> None:
    build(tmp_path)
    tensors(tmp_path, lambda held: held[named(held, "layer.1.output.dense.weight")].fill_(float("nan")))
    assert "no number" in refusal(load, tmp_path)


@every
@pytest.mark.parametrize(
    "said",
    [
        {"num_attention_heads": 5},
        {"hidden_size": None},
        {"hidden_act": "none such"},
        {"model_type": "none_such"},
        {"vocab_size": "many"},
        {"num_hidden_layers": -1},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_refused(
    build: Any, load: Any, said: dict[str, Any], tmp_path: Path
) -> None:
    build(tmp_path)
    config(tmp_path, **said)
    refusal(load, tmp_path)


@pytest.mark.parametrize("kind", ["bros", "llama4", "t5gemma2", "tapas"])
def test_a_kind_that_is_not_served_is_named(kind: str, tmp_path: Path) -> None:
    kinds.saved(tmp_path, kind, 0, "encoder")
    assert kind in refusal(embeds, tmp_path)


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5", "bart", "canine", "xlnet", "falcon", "fnet", "roberta", "qwen2"])
def test_kinds_that_failed_without_a_word_are_served(kind: str, tmp_path: Path) -> None:
    kinds.saved(tmp_path, kind, 1, "encoder")
    assert embeds(tmp_path).facts.dimensions == 32


def test_letters_are_read_without_a_vocabulary(tmp_path: Path) -> None:
    kinds.saved(tmp_path, "t5", 0, "encoder")
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    tokenisers.letters("byt5").save_pretrained(tmp_path)
    assert embeds(tmp_path).facts.max_tokens == 512


def test_falcon_with_alibi_is_served_and_positions_that_are_null_are_named(tmp_path: Path) -> None:
    module, _ = kinds.saved(tmp_path, "falcon", 1, "encoder")
    made = type(module)(type(module.config)(**{**module.config.to_dict(), "alibi": True}))
    made.save_pretrained(tmp_path)
    assert embeds(tmp_path).facts.max_tokens == 128
    config(tmp_path, max_position_embeddings=None)
    assert "max_position_embeddings" in refusal(embeds, tmp_path)
