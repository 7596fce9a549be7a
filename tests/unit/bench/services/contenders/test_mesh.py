"""The shipped configuration, changed where a benchmark has to."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bench.services.contenders import installed, mesh
from bench.services.contenders.place import Absent

SHIPPED = (Path(mesh.__file__).parents[3] / "deploy" / "config" / "generation.toml").read_text()


def test_nothing_else_changes() -> None:
    changes = {"model.source": '"/models/one"', "model.device": '"cpu"', "engine.max_batch": "33"}
    before, after = tomllib.loads(SHIPPED), tomllib.loads(mesh.changed(SHIPPED, changes))
    assert (after["model"].pop("device"), after["model"]["source"], after["engine"]["max_batch"]) == (
        "cpu",
        "/models/one",
        33,
    )
    after["model"]["source"], after["engine"]["max_batch"] = before["model"]["source"], before["engine"]["max_batch"]
    assert after == before


def test_a_key_of_another_section_stays() -> None:
    assert mesh.changed("[a]\nx = 1\n[b]\nx = 2\n", {"b.x": "3"}) == "[a]\nx = 1\n[b]\nx = 3"


def test_a_section_goes_on_after_an_empty_line() -> None:
    assert mesh.changed("[a]\ny = 0\n\nx = 1\n[b]\n", {"a.x": "3"}) == "[a]\nx = 3\ny = 0\n\n[b]\n"


def test_a_section_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        mesh.changed(SHIPPED, {"nothing.x": "1"})


def test_a_peer_that_was_not_installed_whole_is_absent(tmp_path: Path) -> None:
    program = tmp_path / "peer" / "bin" / "serve"
    program.parent.mkdir(parents=True)
    program.touch()
    with pytest.raises(Absent):
        installed.binary("peer", "serve", tmp_path)
    (tmp_path / "peer" / "installed").touch()
    assert installed.binary("peer", "serve", tmp_path) == str(program)
