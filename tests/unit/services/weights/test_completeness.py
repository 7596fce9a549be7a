"""A model whose files and configuration disagree about a tensor, or whose tokeniser is not its own, is not served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from meshgate.runtime.config import ConfigError
from services.generation.config import EngineConfig, ModelConfig
from services.generation.engine import engine_factory
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.seq2seq import build_tiny_marian, build_tiny_t5

ENGINE = EngineConfig.model_validate({"max_batch": 2, "threads": 1})
BUILD = {"llama": build_tiny_llama, "t5": build_tiny_t5, "marian": build_tiny_marian}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module", params=BUILD)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build: Callable[[Path], Path] = BUILD[request.param]
    return build(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("llama"))


def load(folder: Path) -> None:
    settings = {"source": str(folder), "name": "m", "dtype": "float32", "device": "cpu"}
    engine_factory.load(ModelConfig.model_validate(settings), ENGINE, "models.3")


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load(folder)
    said = str(error.value)
    assert said.startswith("models.3.source: ")
    assert "\n" not in said
    return said


def copied(folder: Path, into: Path, change: Callable[[dict[str, Tensor]], object], **config: Any) -> Path:
    """The model with other tensors or another configuration."""
    shutil.copytree(folder, into)
    tensors = load_file(into / "model.safetensors")
    change(tensors)
    save_file(tensors, into / "model.safetensors", metadata={"format": "pt"})
    configure(into, **config)
    return into


def configure(folder: Path, **config: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | config))


def split(folder: Path) -> None:
    """The same tensors in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    places = {name: SHARDS[place % 2] for place, name in enumerate(sorted(tensors))}
    for shard in SHARDS:
        held = {name: tensors[name] for name in tensors if places[name] == shard}
        save_file(held, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(each.nbytes for each in tensors.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def tensors_of(folder: Path) -> list[tuple[str, Tensor]]:
    """A third of them, in turns, so that there is one of each kind. transformers knows that a bias of logits may be
    missing: it is zero then.
    """
    found = sorted(load_file(folder / "model.safetensors").items())
    return [each for each in found if each[0] != "final_logits_bias"][::3]


def test_a_whole_one_is_served(whole: Path) -> None:
    load(whole)


def test_each_tensor_that_is_missing_is_named(whole: Path, tmp_path: Path) -> None:
    for place, (name, _) in enumerate(tensors_of(whole)):
        folder = copied(whole, tmp_path / str(place), lambda tensors, name=name: tensors.pop(name))  # type: ignore[misc]
        said = refusal(folder)
        assert name in said or ("and" in said and "more" in said), "weights that share it are named as well"


def test_a_tensor_of_another_shape_is_named_with_both(whole: Path, tmp_path: Path) -> None:
    for place, (name, tensor) in enumerate(tensors_of(whole)):
        other = torch.zeros([size + 1 for size in tensor.shape])
        folder = copied(whole, tmp_path / str(place), lambda tensors: tensors.update({name: other}))  # noqa: B023
        assert "another shape of" in refusal(folder)


def test_a_tensor_that_has_no_place_is_named(whole: Path, tmp_path: Path) -> None:
    folder = copied(whole, tmp_path / "x", lambda tensors: tensors.update({"model.extra\x1b.weight": torch.ones(3)}))
    assert "has no place for model.extra\\x1b.weight" in refusal(folder)


def test_what_is_known_to_be_unused_may_be_there(llama: Path, tmp_path: Path) -> None:
    unused = ("model.rotary_emb.inv_freq", "model.position_ids", "pooler.dense.weight", "model.layers.0.attn.bias")
    load(copied(llama, tmp_path / "x", lambda tensors: tensors.update({name: torch.ones(3) for name in unused})))


def test_a_head_that_the_configuration_ties_may_be_missing_or_there(llama: Path, tmp_path: Path) -> None:
    def head(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    load(copied(llama, tmp_path / "tied", head))
    load(copied(llama, tmp_path / "apart", head, tie_word_embeddings=False))
    folder = copied(llama, tmp_path / "none", lambda _: None, tie_word_embeddings=False)
    assert "the files lack lm_head.weight" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_hidden_layers": 3}, "the files lack model.layers.2."),
        ({"num_hidden_layers": 1}, "has no place for model.layers.1."),
        ({"intermediate_size": 96}, "another shape of model.layers.0.mlp"),
        ({"attention_bias": True}, "the files lack model.layers.0.self_attn.k_proj.bias"),
        ({"vocab_size": 400}, "another shape of model.embed_tokens.weight (320 x 64 instead of 400 x 64)"),
        ({"num_key_value_heads": 4}, "another shape of model.layers.0.self_attn.k_proj.weight"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    llama: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    assert named in refusal(copied(llama, tmp_path / "x", lambda _: None, **change))


def test_shards_are_read_as_one_file_is(llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path / "x", lambda _: None)
    split(folder)
    load(folder)


@pytest.mark.parametrize("damage", ["missing", "truncated", "lacks a tensor"])
def test_a_shard_that_is_not_whole_is_named(llama: Path, tmp_path: Path, damage: str) -> None:
    folder = copied(llama, tmp_path / "x", lambda _: None)
    split(folder)
    shard = folder / SHARDS[1]
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-100])
    else:
        tensors = load_file(shard)
        lost = sorted(tensors)[0]
        del tensors[lost]
        save_file(tensors, shard, metadata={"format": "pt"})
    assert (lost if damage == "lacks a tensor" else SHARDS[1]) in refusal(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "*"])
def test_a_tokeniser_that_is_not_there_is_named(whole: Path, tmp_path: Path, name: str) -> None:
    folder = copied(whole, tmp_path / "x", lambda _: None)
    for file in [each for each in folder.glob("*") if each.match(name) and "token" in each.name]:
        file.unlink()
    assert "tokeni" in refusal(folder)


def test_a_tokeniser_that_knows_no_word_is_refused(llama: Path, tmp_path: Path) -> None:
    folder = copied(llama, tmp_path / "x", lambda _: None)
    file = folder / "tokenizer.json"
    found = json.loads(file.read_text())
    found["model"]["vocab"], found["model"]["merges"] = {}, []
    file.write_text(json.dumps(found))
    assert "the same ids" in refusal(folder)


def test_a_tokeniser_of_a_larger_or_a_much_smaller_model_is_refused(llama: Path, tmp_path: Path) -> None:
    def padded(rows: int) -> Callable[[dict[str, Tensor]], object]:
        def change(tensors: dict[str, Tensor]) -> None:
            tensors["model.embed_tokens.weight"] = torch.randn(rows, 64)

        return change

    load(copied(llama, tmp_path / "padded", padded(384), vocab_size=384))
    smaller = refusal(copied(llama, tmp_path / "smaller", padded(300), vocab_size=300))
    assert "ids up to 319" in smaller
    assert "another model's" in refusal(copied(llama, tmp_path / "larger", padded(4000), vocab_size=4000))
