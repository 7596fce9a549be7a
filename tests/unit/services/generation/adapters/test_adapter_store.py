"""Adapters on disk: whose they are, and what is refused before a number of them is used."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from meshgate.errors import Internal, InvalidArgument, NotFound, Unavailable
from services.generation.adapters import lora_config
from services.generation.adapters.adapter_store import CONFIG, WEIGHTS, AdapterStore, folder_of
from services.generation.adapters.lora import LoRA, LoraLoader
from services.generation.adapters.lora_layers import LayerSize
from tests.tinymodels.lora import LAYERS, SIZES, build_lora, write_config

LAYER = LAYERS[0]
NAMED = f"base_model.model.{LAYER}.lora_A.weight"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "adapters"
    build_lora(folder / "acme" / "mine", 1)
    return folder


@pytest.fixture
def mine(root: Path) -> Path:
    return root / "acme" / "mine"


def load(root: Path, name: str = "mine", *, file_bytes: int = 1_000_000, rank: int = 8, bases: Any = ()) -> LoRA:
    shelf = AdapterStore(root, root.parent / "shared", file_bytes)
    sizes = {layer: LayerSize(*SIZES[".".join(layer.split(".")[-2:])]) for layer in LAYERS}
    fitting = LoraLoader(sizes, torch.float32, torch.device("cpu"), rank, bases)
    return fitting.fit(shelf.read(shelf.look("acme", name)))


def refused(root: Path, **bounds: Any) -> str:
    """What is said of the adapter `mine`; never where it is."""
    with pytest.raises(InvalidArgument) as error:
        load(root, **bounds)
    assert (error.value.reason, error.value.violations[0].field) == ("ADAPTER_UNUSABLE", "adapter")
    assert str(root) not in error.value.message
    return error.value.violations[0].description


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# Whose they are


def test_a_tenants_own_comes_before_one_for_all(root: Path) -> None:
    shared = root.parent / "shared"
    build_lora(shared / "mine", 2)
    build_lora(shared / "ours", 3)
    shelf = AdapterStore(root, shared, 1_000_000)
    assert [shelf.look(tenant, "mine").folder for tenant in ("acme", "other", "")] == ["acme", "", ""]
    assert shelf.look("acme", "ours").folder == ""


def test_anothers_and_what_does_not_exist_look_the_same(root: Path) -> None:
    shelf = AdapterStore(root, None, 1_000_000)
    said = set()
    for tenant, name in (("other", "mine"), ("acme", "none"), ("", "mine"), ("ACME", "mine")):
        with pytest.raises(NotFound) as error:
            shelf.look(tenant, name)
        said.add((error.value.reason, error.value.message))
    assert said == {("ADAPTER_NOT_FOUND", "no such adapter")}


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "", "../acme/mine", "mine/", "./mine", "/", "mine\0", "mine\n", "-mine", "..mine", "m\\ine"),
        *("x" * 129, "acme/mine", "%2e%2e", "mine/../mine", "ｍine"),
    ],
)
@pytest.mark.parametrize("tenant", ["acme", "other", ""])
def test_hostile_names_name_nothing(root: Path, tenant: str, name: str) -> None:
    for folder in (root / "acme" / "mine\n", root / "acme" / "..mine", root / "acme" / "-mine"):
        build_lora(folder, 1)  # there, and out of reach
    with pytest.raises(NotFound):
        AdapterStore(root, root / "acme", 1_000_000).look(tenant, name)


@pytest.mark.parametrize("tenant", ["..", ".", "../acme", "/acme", "acme/", "acme/.", "acme\0", "a" * 129, "äcme"])
def test_hostile_tenants_own_nothing(root: Path, tenant: str) -> None:
    for folder in (root, root.parent):
        build_lora(folder / "mine", 1)  # where . and .. would lead
    with pytest.raises(NotFound):
        AdapterStore(root, None, 1_000_000).look(tenant, "mine")


def test_a_tenant_whose_name_is_no_folders_has_one(root: Path) -> None:
    assert folder_of("eu/acme:1") == "eu%2Facme%3A1"
    assert folder_of("eu%2Facme:1") != folder_of("eu/acme:1")
    build_lora(root / "eu%2Facme%3A1" / "own", 1)
    assert AdapterStore(root, None, 1_000_000).look("eu/acme:1", "own")
    with pytest.raises(NotFound):
        AdapterStore(root, None, 1_000_000).look("eu%2Facme%3A1", "own")


@pytest.mark.parametrize("link", ["acme/linked", "linked"])
def test_a_link_to_a_folder_leads_nowhere(root: Path, tmp_path: Path, link: str) -> None:
    build_lora(tmp_path / "outside" / "linked", 1)
    target = tmp_path / "outside" / ("linked" if "/" in link else "")
    (root / link).symlink_to(target, target_is_directory=True)
    with pytest.raises(NotFound):
        AdapterStore(root, None, 1_000_000).look(link.split("/", maxsplit=1)[0], "linked")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_link_to_a_file_is_refused(mine: Path, root: Path, tmp_path: Path, file: str) -> None:
    (mine / file).rename(tmp_path / file)
    (mine / file).symlink_to(tmp_path / file)
    assert refused(root) == f"{file} is a link"


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_pipe_is_refused_and_not_waited_for(mine: Path, root: Path, file: str) -> None:
    (mine / file).unlink()
    os.mkfifo(mine / file)
    assert refused(root) == f"{file} is not a file"


def test_a_disk_that_fails_is_no_missing_adapter(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise OSError(5, "Input/output error", str(root))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(Internal) as error:
        AdapterStore(root, None, 1_000_000).look("acme", "mine")
    assert error.value.message == "adapters can't be read: EIO"


def test_what_changes_between_the_look_and_the_reading_is_not_used(root: Path, mine: Path) -> None:
    shelf = AdapterStore(root, None, 1_000_000)
    found = shelf.look("acme", "mine")
    write_config(mine, lora_alpha=9)
    with pytest.raises(Unavailable):
        shelf.read(found)
    assert shelf.look("acme", "mine") != found


# What is in them


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_file_that_is_missing_is_named(mine: Path, root: Path, file: str) -> None:
    (mine / file).unlink()
    assert refused(root) == f"{file} is missing"


def test_a_pickle_is_not_opened(mine: Path, root: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    (mine / WEIGHTS).unlink()
    (mine / "adapter_model.bin").write_bytes(pickle.dumps(Trap()))
    assert "pickle" in refused(root)
    (mine / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    assert refused(root) == "its numbers are damaged"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("file", "most"), [(WEIGHTS, 1_000_000), (CONFIG, 1_048_576)])
def test_a_huge_file_is_not_read(mine: Path, root: Path, file: str, most: int) -> None:
    with (mine / file).open("r+b") as stream:
        stream.truncate(most + 1)  # a hole: it takes no disk, and would take memory
    with pytest.raises(InvalidArgument, match=f"{file} is too large"):
        AdapterStore(root, None, 1_000_000).look("acme", "mine")


@pytest.mark.parametrize("cut", [0, 4, 100, 5000, -1])
def test_damaged_numbers(mine: Path, root: Path, cut: int) -> None:
    (mine / WEIGHTS).write_bytes((mine / WEIGHTS).read_bytes()[:cut])
    assert refused(root) == "its numbers are damaged"


def test_a_table_of_contents_that_is_larger_than_any(mine: Path, root: Path) -> None:
    contents = json.dumps({f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(90_000)})
    (mine / WEIGHTS).write_bytes(struct.pack("<Q", len(contents)) + contents.encode())
    assert refused(root, file_bytes=10_000_000) == "its numbers are damaged"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(NAMED.replace("lora_A", "lora_B")), "shape, or not whole"),
        (lambda t: t.pop(NAMED), "something in it besides"),
        (lambda t: t.update({"base_model.model.lm_head.modules_to_save.weight": torch.zeros(2)}), "besides pairs"),
        (lambda t: t.update({NAMED.replace("lora_A.weight", "lora_magnitude_vector"): torch.zeros(2)}), "besides"),
        (lambda t: t.update({NAMED.replace("q_proj", "w_proj"): torch.zeros(4, 64)}), "no layer that it changes"),
        (lambda t: t.update({"x.lora_A.weight": torch.zeros(4, 64)}), "no layer that it changes"),
        (lambda t: t.update({NAMED: torch.zeros(4, 65)}), f"{LAYER}: of another shape"),
        (lambda t: t.update({NAMED: torch.zeros(5, 64)}), f"{LAYER}: of another shape"),
        (lambda t: t.update({NAMED: torch.zeros(4, 64, 1)}), f"{LAYER}: of another shape"),
        (lambda t: t.update({NAMED: torch.full((4, 64), torch.nan)}), "finite"),
        (lambda t: t.update({NAMED.replace("lora_A", "lora_B"): torch.full((64, 4), 3e38)}), "finite"),
        (lambda t: t.update({NAMED: torch.zeros(4, 64, dtype=torch.int8)}), "float32, bfloat16 or float16"),
        (lambda t: t.clear(), "besides pairs"),
    ],
)
def test_numbers_that_fit_no_layer(mine: Path, root: Path, change: Any, said: str) -> None:
    rewrite(mine, change)
    assert said in refused(root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is not supported"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is not supported"),
        ({"trainable_token_indices": [0]}, "trainable_token_indices is not supported"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is not supported"),
        ({"lora_bias": True}, "lora_bias is not supported"),
        ({"use_secret_sauce": True}, "something in its configuration is not supported"),
        ({"bias": "all"}, "bias is missing or not supported"),
        ({"peft_type": "IA3"}, "peft_type is missing or not supported"),
        ({"task_type": "SEQ_CLS"}, "task_type is missing or not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is missing or not supported"),
        ({"r": 0}, "r is missing or not supported"),
        ({"r": "many"}, "r is missing or not supported"),
        ({"lora_alpha": float("inf")}, "lora_alpha is missing or not supported"),
        ({"rank_pattern": {"(a+)+$": 4}}, "have to name layers"),
        ({"alpha_pattern": {".*": 4}}, "have to name layers"),
        ({"rank_pattern": {"q_proj": 9}}, "rank has to be from 1 to 8"),
        ({"rank_pattern": {"q_proj": 0}}, "rank has to be from 1 to 8"),
        ({"rank_pattern": {"q_proj": 5}}, "of another shape"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_what_makes_it_none(
    mine: Path, root: Path, changes: dict[str, Any], said: str
) -> None:
    write_config(mine, **changes)
    assert said in refused(root)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b"{}"])
def test_a_configuration_that_is_none(mine: Path, root: Path, text: bytes) -> None:
    (mine / CONFIG).write_bytes(text)
    refused(root)


def test_the_rank_is_bounded(mine: Path, root: Path) -> None:
    assert load(root, rank=4)
    assert refused(root, rank=3) == "its rank has to be from 1 to 3"


def test_the_model_that_it_was_made_for_is_held_against_those_that_are_allowed(mine: Path, root: Path) -> None:
    assert load(root, bases=("tiny", "small"))
    assert refused(root, bases=("small",)) == "it was made for another model"
    write_config(mine, base_model_name_or_path=None)
    assert refused(root, bases=("small",)) == "it was made for another model"
    assert load(root)


@pytest.mark.parametrize(
    ("changes", "layer", "scale"),
    [
        ({}, "model.layers.0.q", 2.0),
        ({"use_rslora": True}, "model.layers.0.q", 4.0),
        ({"alpha_pattern": {"q": 4}}, "model.layers.0.q", 1.0),
        ({"alpha_pattern": {"q": 4}}, "model.layers.0.xq", 2.0),
        ({"alpha_pattern": {"^q": 4}}, "model.layers.0.q", 2.0),
        ({"alpha_pattern": {"^model.layers.0.q": 4}}, "model.layers.0.q", 1.0),
        ({"alpha_pattern": {"0.q": 4, "q": 12}, "rank_pattern": {"q": 2}}, "model.layers.0.q", 2.0),
        ({"alpha_pattern": None, "rank_pattern": None}, "model.layers.0.q", 2.0),
    ],
)
def test_the_scale_is_pefts(mine: Path, changes: dict[str, Any], layer: str, scale: float) -> None:
    write_config(mine, **changes)
    assert lora_config.read((mine / CONFIG).read_bytes()).scale(layer) == scale
