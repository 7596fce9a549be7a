"""Dense layers after the pooling say what sentence-transformers' own say, and what we don't have is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn

from meshgate.runtime.config import ConfigError
from services.embedding import model, model_worker
from services.embedding.config import ModelConfig
from services.encoders.pooling import Pooling as Ours
from services.sentence_transformers.model import EmbeddingModel
from services.text.tokens import Cut
from tests.tinymodels.bert import build_tiny_bert

TEXTS = ["a", "the quick brown fox", "x = 1 # a comment", "a text of somewhat more words than the others have"]
LAYERS: dict[str, Callable[[int], list[Any]]] = {
    "tanh": lambda size: [Dense(size, 7)],
    "two, of which the first is wide": lambda size: [
        Dense(size, 3 * size, bias=False, activation_function=nn.Identity()),
        Dense(3 * size, size, bias=False, activation_function=None),
        Normalize(),
    ],
    "residual": lambda size: [Dense(size, size, activation_function=nn.GELU(), use_residual=True)],
    "residual of another size": lambda size: [Dense(size, 5, activation_function=nn.ReLU(), use_residual=True)],
    "scaled between": lambda size: [Normalize(), Dense(size, 9, activation_function=nn.Sigmoid())],
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


def saved(tiny: Path, folder: Path, layers: Callable[[int], list[Any]]) -> tuple[Path, Any]:
    """A model as sentence-transformers writes it, and the model itself."""
    torch.manual_seed(7)
    encoder = Transformer(str(tiny))
    size = encoder.get_embedding_dimension()
    theirs = SentenceTransformer(modules=[encoder, Pooling(size), *layers(size)], device="cpu")
    theirs.save(str(folder))
    return folder, theirs


def load(folder: Path, **settings: Any) -> EmbeddingModel:
    config = {"source": str(folder), "name": "m", "dtype": "float32", "device": "cpu", **settings}
    return model.load(ModelConfig.model_validate(config), "models.1")


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_vectors_are_those_of_sentence_transformers(
    tiny: Path, tmp_path: Path, layers: Callable[[int], list[Any]]
) -> None:
    folder, theirs = saved(tiny, tmp_path / "model", layers)
    ours = load(folder)
    tokens = ours.tokeniser.read(TEXTS, Cut.END, "inputs")
    got, wanted = ours.run(tokens, [Ours.MEAN] * len(tokens)), np.asarray(theirs.encode(TEXTS))
    if isinstance(theirs[-1], Normalize):
        got /= np.linalg.norm(got, axis=1, keepdims=True)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert ours.dimensions == model_worker._facts(ours).dimensions == wanted.shape[1]


@pytest.fixture
def dense(tiny: Path, tmp_path: Path) -> Path:
    return saved(tiny, tmp_path / "model", LAYERS["tanh"])[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation_function": "os.system"}, "its function is not served: os.system"),
        ({"activation_function": "torch.nn.modules.activation.Softmax"}, "its function is not served: torch.nn"),
        ({"module_input_name": "token_embeddings"}, "it is not for the pooled vector, so it is not served"),
        ({"module_output_name": "another"}, "it is not for the pooled vector, so it is not served"),
        ({"in_features": 3}, "it takes 3 numbers of 32"),
        ({"in_features": "many"}, "config.json: in_features: "),
        ({"in_features": 10**12}, "config.json: in_features: "),
        ({"in_features": 10**6, "out_features": 10**6}, "its weights are not those that its config.json says"),
        ({"bias": False}, "its weights are not those that its config.json says"),
        ({"gate": True}, "config.json: gate: unknown key; known: "),
    ],
)
def test_a_layer_that_is_not_served_is_refused_by_name(dense: Path, change: dict[str, Any], said: str) -> None:
    file = dense / "2_Dense" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    if change.get("in_features") == 3:
        weights = load_file(dense / "2_Dense" / "model.safetensors")
        weights["linear.weight"] = weights["linear.weight"][:, :3].contiguous()
        save_file(weights, dense / "2_Dense" / "model.safetensors")
    with pytest.raises(ConfigError) as refused:
        load(dense)
    assert str(refused.value).startswith(f"models.1.source: 2_Dense: {said}")


def test_damaged_and_missing_weights_are_one_line(dense: Path) -> None:
    file = dense / "2_Dense" / "model.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-4], b"", None):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"^models\.1\.source: [^\n]*$"):
            load(dense)
        file.touch()
    weights = load_file_of(whole, dense)
    save_file({"linear.weight": weights["linear.weight"]}, file)
    with pytest.raises(ConfigError, match=r"^models\.1\.source: [^\n]*$"):
        load(dense)


def load_file_of(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    file = folder / "whole"
    file.write_bytes(content)
    return load_file(file)


def test_a_pickle_is_refused_unless_it_is_allowed(dense: Path) -> None:
    file = dense / "2_Dense" / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    with pytest.raises(ConfigError, match=r"^models\.1\.source: 2_Dense: pytorch_model.bin is a pickle"):
        load(dense)
    assert load(dense, allow_pickle=True).dimensions == 7
    torch.save({"linear.weight": Evil()}, file.with_name("pytorch_model.bin"))
    with pytest.raises(ConfigError, match=r"^models\.1\.source: [^\n]*a pickle of more than numbers"):
        load(dense, allow_pickle=True)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit",))


def test_a_layer_is_looked_for_in_the_models_folder_and_nowhere_else(dense: Path) -> None:
    modules = json.loads((dense / "modules.json").read_text())
    shutil.move(dense / "2_Dense", dense.parent / "2_Dense")
    modules[2]["path"] = "../2_Dense"
    (dense / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match=r"^models\.1\.source: "):
        load(dense)
