"""What the supervisor says: a line for an event, without markup or escapes of others; nobody listening is no error."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
from rich.console import Console

from meshgate.supervisor import console as mesh_console
from meshgate.supervisor.board import Board, State
from meshgate.supervisor.console import KeptLine, MeshConsole


class Closed(io.StringIO):
    """A pipe whose reader left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=30)


@pytest.fixture
def board() -> Board:
    moments = iter((0.0, 3.21, 3.21))
    return Board(("generation",), lambda: next(moments))


def test_a_change_is_a_line_with_its_seconds(console: Console, board: Board) -> None:
    board.heard("generation", State.SERVING)
    MeshConsole(console, board).changed("generation")
    assert lines(console) == ["generation serving after 3.2 s"]


def test_a_death_is_told_with_what_it_said_last(console: Console, board: Board) -> None:
    MeshConsole(console, board).died(
        "generation", -9, 0.51, '{"message": "model.source: [no] such\\u001b[2J directory"}'
    )
    assert lines(console) == [
        "generation died (signal SIGKILL), starting it again in 0.5 s",
        "  model.source: [no] such\\x1b[2J directory",
    ]


def test_one_that_said_nothing_has_no_second_line(console: Console, board: Board) -> None:
    MeshConsole(console, board).died("generation", 3, 1, "")
    assert lines(console) == ["generation died (status 3), starting it again in 1.0 s"]


def test_ready_says_what_to_do_next(console: Console, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    MeshConsole(console, board).ready("127.0.0.1:8443")
    assert lines(console)[0] == "ready on 127.0.0.1:8443"
    assert "  meshgate chat" in lines(console)


def test_the_next_commands_are_named_as_they_can_be_called(
    console: Console, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.chdir(Path(sys.executable).parent.parent)
    MeshConsole(console, board).ready("127.0.0.1:8443")
    assert "  bin/meshgate chat" in lines(console)


@pytest.mark.parametrize(
    ("home", "prefix"),
    [
        (".meshgate", ""),
        (".meshgate-100", "MESHGATE_HOME=.meshgate-100 "),
        ("a b", "MESHGATE_HOME='a b' "),
        ("../other", "MESHGATE_HOME={other} "),
    ],
)
def test_the_next_commands_work_as_printed_for_every_state_directory(
    console: Console, board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str, prefix: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("shutil.which", lambda name: name)
    place = (tmp_path / "here" / home).resolve()
    MeshConsole(console, board).ready("127.0.0.1:8543", place)
    assert f"  {prefix.format(other=place)}meshgate chat" in lines(console)
    assert f"Try, from another terminal in {tmp_path / 'here'}:" in lines(console)
    assert f"Elsewhere, call meshgate with --home {shlex.quote(str(place))}." in lines(console)


def test_parts_that_nobody_knows_the_place_of_are_told(console: Console, board: Board) -> None:
    MeshConsole(console, board).starting(Path("logs"), {"generation-2": "127.0.0.1:8461"})
    assert lines(console)[1:] == ["generation-2 listens on 127.0.0.1:8461"]


def test_without_a_terminal_there_is_no_table(console: Console, board: Board) -> None:
    with MeshConsole(console, board).loading():
        pass
    assert lines(console) == []


def test_a_reader_who_left_is_no_error(board: Board) -> None:
    console = KeptLine(file=Closed())
    for _ in range(2):
        MeshConsole(console, board).starting(Path("logs"))
    assert console.quiet


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("plain", "plain"),
        ('{"message": "m"}', "m"),
        ('{"level": "error", "message": "m"}', "m"),
        ('{"level": "warning", "message": "m"}', "m"),
        ('{"level": "info", "message": "serving"}', ""),
        ('{"level": "debug", "message": "m"}', ""),
        ("[1]", "[1]"),
        ('{"a": 1}', ""),
        ("", ""),
    ],
)
def test_the_message_of_a_line(line: str, said: str) -> None:
    assert mesh_console.message(line) == said


def test_the_gateway_waits_and_does_not_load() -> None:
    assert mesh_console.doing("gateway", State.LOADING) == "waiting for the services"
    assert mesh_console.doing("embedding", State.LOADING) == "loading"
