"""What commands print. All of it passes meshgate.terminal, so that nothing from a server, a log or a file is obeyed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from meshgate import terminal

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console
    from rich.table import Table

_SHOWN = 40
_WIDE = 10_000


def on_terminal() -> bool:
    """Whether answers are read by a person as they come."""
    return sys.stdout.isatty()


def json(message: Message, *, line: bool = False, zeros: bool = False) -> None:
    """The message as protobuf JSON, and nothing else; on one line in streams. With `zeros` it says 0 where protobuf
    JSON leaves a field out, such as the place of what begins a text.
    """
    from google.protobuf.json_format import MessageToJson

    indent = None if line else 2
    made = MessageToJson(message, ensure_ascii=False, indent=indent, always_print_fields_with_no_presence=zeros)
    typer.echo(terminal.json_escaped(made))


def data(value: Any) -> None:
    """A value of strings, numbers, lists and dicts as JSON on one line."""
    from json import dumps

    typer.echo(terminal.json_escaped(dumps(value)))


def text(line: str = "", *, newline: bool = True, piece: bool = False) -> None:
    """An answer. On a terminal it is escaped; a pipe or a file gets exactly what was answered, byte for byte."""
    if sys.stdout.isatty():
        line = terminal.escaped(line, piece=piece)
    sys.stdout.write(f"{line}\n" if newline else line)  # typer's echo would drop escape sequences from a file
    sys.stdout.flush()


def note(line: str) -> None:
    """A remark to the user, on standard error: not part of the answer."""
    typer.echo(terminal.escaped(line), err=True)


def error(line: str) -> None:
    """What went wrong, on one line of standard error."""
    typer.echo(terminal.line(line), err=True)


def styled(*parts: str | tuple[str, str]) -> None:
    """A line of parts, each a text or a text and its style. What a part says is never markup."""
    from rich.text import Text

    pairs = [(part, "") if isinstance(part, str) else part for part in parts]
    console().print(Text.assemble(*((terminal.line(said), style) for said, style in pairs)), soft_wrap=True)


def table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table of cells as they are: what a model or a caller wrote is never markup. Nothing is cut: where a terminal is
    too narrow for the columns, rows are shown as pairs of name and value, and elsewhere there is room.
    """
    from rich.table import Table

    made = Table(box=None)
    for name in columns:
        made.add_column(cell(name), overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    show(made)


def show(made: Table) -> None:
    """A table whose cells, headers included, were made by `cell`."""
    from meshgate.cli.screen import tables

    wide = console(wide=True)
    wide.print(tables.fitted(made, wide))


def cell(value: Any, style: str = "") -> Any:
    """A value for a table of Rich's: one line, no markup."""
    from rich.text import Text

    return Text(terminal.line(str(value)), style)


def console(*, stderr: bool = False, wide: bool = False) -> Console:
    """Where Rich prints. One that is `wide` cuts nothing where there is no terminal to wrap it."""
    from rich.console import Console

    return Console(stderr=stderr, width=_WIDE if wide and not sys.stdout.isatty() else None, highlight=False)


def short(value: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
