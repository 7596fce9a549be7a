"""An option that is given nothing, as an unset variable gives it, is an error: for every option of every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer._click.core import Context
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from meshgate.cli.main import app
from meshgate.cli.plugins import Absent


def _options(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each option that takes a value, with the words before it."""
    command = command.present() if isinstance(command, Absent) else command
    for each in command.params:
        if each.param_type_name == "option" and not each.is_flag:
            yield path, each.opts[0]
    if isinstance(command, TyperGroup):
        ctx = Context(command)
        for name in command.list_commands(ctx):
            yield from _options(command.get_command(ctx, name), (*path, name))


NUMBERS = [((), "--deadline")]
"""Of the root: the parser says that they are none."""
EVERY = [each for each in _options(get_command(app), ()) if each not in NUMBERS]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MESHGATE_TARGET", "MESHGATE_CA", "MESHGATE_TOKEN", "MESHGATE_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_all_of_them_are_tried() -> None:
    assert len(EVERY) > 60
    assert {path[:1] for path, _ in EVERY} >= {(), ("generate",), ("audit",), ("policy",), ("token",), ("up",)}


@pytest.mark.parametrize(("path", "option"), EVERY)
def test_an_empty_one_is_an_error(path: tuple[str, ...], option: str) -> None:
    said = CliRunner().invoke(app, [*path, option, "", *(() if path else ("models",))])
    assert (said.exit_code, said.stderr) == (2, f"meshgate: {option}: it is empty; leave it out, or give it a value\n")


def test_a_state_directory_without_a_name_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", "")
    said = CliRunner().invoke(app, ["token"])
    assert (said.exit_code, said.stderr) == (2, "meshgate: MESHGATE_HOME is empty: give it a value, or unset it\n")


def test_arguments_may_be_empty_and_an_option_may_be_a_dot() -> None:
    said = CliRunner().invoke(app, ["--home", ".", "generate", "--no-echo", ""])
    assert "it is empty" not in said.stderr
