"""What `meshgate up` shows: a live table while models load on a terminal, and a line for each event everywhere."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from meshgate import terminal
from meshgate.services import GATEWAY
from meshgate.supervisor.board import Board, State

_STYLES: Final = {State.STARTING: "dim", State.LOADING: "yellow", State.SERVING: "green", State.DEAD: "red"}
_WORTH_SAYING: Final = 0.1
_WELL: Final = ("debug", "info")
_NEXT: Final = """\
Try, from another terminal in {here}:
  {command} generate "Gravity is" --max-tokens 20
  {command} chat
  {command} embed "你好，世界！"
  {command} classify "I loved this film"
  {command} audit tail
Elsewhere, call {program} with --home {home}.
Ctrl-C stops everything."""


def _program() -> str | None:
    """`meshgate` where PATH has it."""
    return "meshgate" if shutil.which("meshgate") else None


def _command(home: Path) -> str:
    """How `meshgate` is called from here, for the mesh of `home`: by name, or by path where PATH does not have it."""
    called = shlex.quote(_program() or os.path.relpath(_installed()))
    if home == Path(".meshgate").absolute():
        return called
    near = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    return f"MESHGATE_HOME={shlex.quote(str(near))} {called}"


def _installed() -> Path:
    return Path(sys.executable).parent / "meshgate"


class KeptLine(Console):
    """A console whose reader may leave: by default Rich then ends the process."""

    def on_broken_pipe(self) -> None:
        """Says no more. What is still buffered goes nowhere, so that flushing it at exit is no error either."""
        self.quiet = True
        if self.file is sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class MeshConsole:
    """Speaks to whoever started the mesh. A terminal or a pipe that was closed is no reason to fail: the children would
    be left without their supervisor.
    """

    def __init__(self, console: Console, board: Board) -> None:
        self._console = console
        self._board = board

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Shows the table while it is entered, where there is a terminal to redraw."""
        if not self._console.is_terminal:
            yield
            return
        live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
        with live:
            yield

    def say(self, text: str) -> None:
        """A line, with markup."""
        with contextlib.suppress(OSError):
            self._console.print(text, highlight=False, soft_wrap=True)

    def changed(self, name: str) -> None:
        """A part's state is another."""
        state, seconds = self._board.parts[name].state, self._board.seconds(name)
        took = f" after {seconds:.1f} s" if seconds >= _WORTH_SAYING else ""
        self.say(f"[{_STYLES[state]}]{name}[/] {doing(name, state)}{took}")

    def died(self, name: str, status: int, wait: float, last_line: str) -> None:
        """A part's process ended unasked."""
        self.say(f"[red]{name}[/] died ({ending(status)}), starting it again in {wait:.1f} s")
        if why := message(last_line):
            self.say(f"  {escape(why)}")

    def ready(self, target: str, home: Path | None = None) -> None:
        """All serve: what to do next. The mesh's state is in `home`, by default where commands look by themselves."""
        place = home or Path(".meshgate").absolute()
        program = shlex.quote(_program() or str(_installed()))
        told = _NEXT.format(
            here=terminal.line(str(Path.cwd())), command=_command(place), program=program, home=shlex.quote(str(place))
        )
        self.say(f"[bold green]ready[/] on {escape(terminal.line(target))}")
        self.say(escape(terminal.escaped(told)))

    def starting(self, logs: Path, places: Mapping[str, str] | None = None) -> None:
        """Where to look when it takes long, and where the parts are of which nobody else says it."""
        self.say(f"starting; logs are in {escape(terminal.line(str(logs)))}")
        for name, where in (places or {}).items():
            self.say(f"{name} listens on {escape(terminal.line(where))}")

    def _table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, part in self._board.parts.items():
            seconds = f"{self._board.seconds(name):.0f} s"
            table.add_row(f"[{_STYLES[part.state]}]{name}[/]", doing(name, part.state), seconds)
        return table


def doing(name: str, state: State) -> str:
    """A state in words. The gateway loads nothing: it waits."""
    return "waiting for the services" if name == GATEWAY and state is State.LOADING else state.value


def ending(status: int) -> str:
    """How a process ended, in words."""
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"status {status}"


def message(line: str) -> str:
    """The message of a line of a JSON log; other lines as they are. Nothing that a terminal would obey, and nothing of
    a line on what went well: it is not why a process ended.
    """
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            line = "" if found.get("level") in _WELL else str(found.get("message", ""))
    return terminal.line(line)
