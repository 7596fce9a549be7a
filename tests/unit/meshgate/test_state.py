"""What a mesh leaves in its state directory, and commands that find it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from meshgate import state
from meshgate.cli import main
from meshgate.cli.connection import Connection
from meshgate.client import environment

MESH = state.Running("127.0.0.1:7443", "/etc/meshgate", {"generation": "ipv4:127.0.0.1:1,127.0.0.1:2"}, "unix:///s")


def test_what_is_left_is_found(tmp_path: Path) -> None:
    assert state.running(tmp_path) is None
    state.record(tmp_path, MESH)
    assert state.running(tmp_path) == MESH
    assert [file.name for file in tmp_path.iterdir()] == ["up.json"]


@pytest.mark.parametrize(
    "junk",
    [b"", b"{", b"[]", b"null", b"{}", b'{"target": 1, "config_dir": ""}', b"\xff" * 70_000]
    + [b'{"target": "a", "config_dir": "", "backends": %s}' % junk for junk in (b"1", b"[]", b'{"a": 1}', b"null")],
)
def test_what_is_no_word_of_a_mesh_is_none(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "up.json").write_bytes(junk)
    assert state.running(tmp_path) is None


def test_what_a_later_version_adds_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"target": "a:1", "config_dir": "b", "more": 1}))
    assert state.running(tmp_path) == state.Running("a:1", "b")


@pytest.mark.parametrize(
    ("recorded", "variable", "flag", "target"),
    [
        (False, None, None, "127.0.0.1:8443"),
        (True, None, None, "127.0.0.1:7443"),
        (True, "a:1", None, "a:1"),
        (True, "a:1", "b:2", "b:2"),
        (False, None, "b:2", "b:2"),
    ],
)
def test_a_command_finds_the_mesh_of_its_state_directory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
    variable: str | None,
    flag: str | None,
    target: str,
) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    monkeypatch.delenv("MESHGATE_TARGET", raising=False)
    if variable is not None:
        monkeypatch.setenv("MESHGATE_TARGET", variable)
    if recorded:
        state.record(tmp_path, MESH)
    seen: list[str] = []

    def connection(where: str, *rest: Any) -> Connection:
        seen.append(where)
        return Connection(where, *rest)

    monkeypatch.setattr(main, "Connection", connection)
    CliRunner().invoke(main.app, [*(("--target", flag) if flag else ()), "models"])
    assert seen == [target]


def test_the_sdk_and_the_examples_find_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    state.record(tmp_path, MESH)
    assert environment.settings({"MESHGATE_TOKEN": "a.b.c"})["target"] == MESH.target
    assert environment.settings({"MESHGATE_TOKEN": "a.b.c", "MESHGATE_TARGET": "a:1"})["target"] == "a:1"
