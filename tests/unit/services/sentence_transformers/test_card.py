"""sentence-transformers' files beside a model: which modules and poolings are served, and what a refusal names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from meshgate.runtime.config import ConfigError
from services.embedding import model
from services.embedding.config import ModelConfig
from services.encoders.pooling import Pooling
from services.sentence_transformers.card import read_card
from tests.tinymodels.bert import build_tiny_bert

OLD = "sentence_transformers.models."
NEW = "sentence_transformers.base.modules."
ENCODER = ("", OLD + "Transformer")
POOLING = ("1_Pooling", OLD + "Pooling")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


def listed(folder: Path, *modules: tuple[str, str]) -> Path:
    found = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(found))
    return folder


def pooled(folder: Path, place: str = "1_Pooling", **config: Any) -> Path:
    (folder / place).mkdir()
    (folder / place / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_that_says_nothing_has_the_mean(tmp_path: Path) -> None:
    assert read_card(tmp_path, "model").pooling is Pooling.MEAN


@pytest.mark.parametrize(
    "after",
    [(), (("2_Normalize", OLD + "Normalize"),), (("2", NEW + "normalize.Normalize"), ("3", NEW + "dropout.Dropout"))],
    ids=["nothing", "normalize", "as written today"],
)
def test_what_changes_no_vector_of_ours_is_served(tmp_path: Path, after: tuple[tuple[str, str], ...]) -> None:
    listed(tmp_path, ENCODER, POOLING, *after)
    assert read_card(tmp_path, "model").pooling is Pooling.MEAN


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("2_Pooling", NEW + "pooling.Pooling"),
        ("2_LayerNorm", OLD + "LayerNorm"),
        ("2_SpladePooling", "sentence_transformers.sparse_encoder.models.SpladePooling"),
        ("2_Pooling", "custom_st.Pooling"),
    ],
)
def test_any_other_module_is_refused_by_name(tiny: Path, tmp_path: Path, path: str, kind: str) -> None:
    folder = listed(Path(shutil.copytree(tiny, tmp_path / "model")), ENCODER, POOLING, (path, kind))
    with pytest.raises(ConfigError) as refused:
        model.load(ModelConfig(source=str(folder), name="m", dtype="float32", device="cpu"), "models.1")
    assert str(refused.value) == f"models.1.source: the model has a module that is not served: {path} ({kind})"


def test_what_follows_the_pooling_is_kept_in_its_order(tmp_path: Path) -> None:
    dense = OLD + "Dense"
    listed(
        tmp_path, ENCODER, POOLING, ("2_N", OLD + "Normalize"), ("3_D", dense), ("4_D", dense), ("5", OLD + "Normalize")
    )
    assert read_card(tmp_path, "model").after == [None, "3_D", "4_D"]


def test_a_layer_before_the_pooling_is_refused(tmp_path: Path) -> None:
    listed(tmp_path, ENCODER, ("1_Dense", NEW + "dense.Dense"), POOLING)
    with pytest.raises(ConfigError, match=r"^model\.source: .*1_Dense"):
        read_card(tmp_path, "model")


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, Pooling.LAST),
        ({"pooling_mode": "cls"}, Pooling.CLS),
        ({"pooling_mode": ["lasttoken"], "pooling_mode_mean_tokens": True}, Pooling.LAST),
        ({"pooling_mode": "mean"}, Pooling.MEAN),
        ({"pooling_mode_mean_tokens": False}, Pooling.MEAN),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, Pooling.MAX),
        ({"pooling_mode": "max"}, Pooling.MAX),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, Pooling.SQRT),
        ({"pooling_mode": "weightedmean"}, Pooling.WEIGHTED),
    ],
)
def test_the_pooling_is_read_in_both_spellings(tmp_path: Path, config: dict[str, Any], pooling: Pooling) -> None:
    assert read_card(pooled(tmp_path, **config), "model").pooling is pooling


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode_own_tokens": True}, "pooling_mode_own_tokens"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean, cls"),
        ({"pooling_mode": "median"}, "median"),
        ({"pooling_mode": ["mean", "max"]}, "mean, max"),
        ({"pooling_mode": "mean", "include_prompt": False}, "it leaves the prompt out"),
    ],
)
def test_another_pooling_is_refused_by_name(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_card(pooled(tmp_path, **config), "models.2")
    assert str(refused.value) == f"models.2.source: the model's pooling is not served: {named}"


def test_the_pooling_is_read_where_the_list_has_it(tmp_path: Path) -> None:
    pooled(tmp_path, "2_Pooling", pooling_mode_cls_token=True)
    listed(tmp_path, ENCODER, ("2_Pooling", OLD + "Pooling"))
    assert read_card(tmp_path, "model").pooling is Pooling.CLS


@pytest.mark.parametrize("text", ["{", '"a"', '["a"]', '{"type": "a"}'])
def test_a_list_that_is_none_is_one_line(tiny: Path, tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    (folder / "modules.json").write_text(text)
    with pytest.raises(ConfigError, match=r"^models\.1\.source: [^\n]*$"):
        model.load(ModelConfig(source=str(folder), name="m", dtype="float32", device="cpu"), "models.1")
