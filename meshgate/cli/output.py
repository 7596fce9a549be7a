"""What commands print."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message

_SHOWN = 40
_WIDE = 10_000


def json(message: Message, *, line: bool = False, zeros: bool = False) -> None:
    """The message as protobuf JSON, and nothing else; on one line in streams. With `zeros` it says 0 where protobuf
    JSON leaves a field out, such as the place of what begins a text.
    """
    from google.protobuf.json_format import MessageToJson

    indent = None if line else 2
    typer.echo(MessageToJson(message, ensure_ascii=False, indent=indent, always_print_fields_with_no_presence=zeros))


def text(line: str = "", *, newline: bool = True) -> None:
    """Text as it is; on a terminal, without what would make the terminal do something."""
    typer.echo(printable(line) if sys.stdout.isatty() else line, nl=newline)


def note(line: str) -> None:
    """A remark to the user, on standard error: not part of the answer."""
    typer.echo(printable(line), err=True)


def table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table of cells as they are: what a model or a caller wrote is never markup. Nothing is cut: a terminal wraps
    it, and elsewhere there is room.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    made = Table(*(Column(name, overflow="fold") for name in columns), box=None)
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(made)


def short(value: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def printable(value: str) -> str:
    """The text with control characters, but for line ends and tabs, replaced: a model can write escape sequences."""
    return "".join("\ufffd" if unicodedata.category(each) == "Cc" and each not in "\n\t" else each for each in value)
