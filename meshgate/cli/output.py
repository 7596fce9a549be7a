"""What commands print."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

_SHOWN = 40


def json(message: Message, *, line: bool = False) -> None:
    """The message as protobuf JSON, and nothing else; on one line in streams."""
    from google.protobuf.json_format import MessageToJson

    typer.echo(MessageToJson(message, ensure_ascii=False, indent=None if line else 2))


def text(line: str = "", *, newline: bool = True) -> None:
    """Text as it is; on a terminal, without what would make the terminal do something."""
    typer.echo(printable(line) if sys.stdout.isatty() else line, nl=newline)


def note(line: str) -> None:
    """A remark to the user, on standard error: not part of the answer."""
    typer.echo(printable(line), err=True)


def console() -> Console:
    """For tables and rules."""
    from rich.console import Console

    return Console()


def table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table of cells as they are: what a model or a caller wrote is never markup."""
    from rich.table import Table
    from rich.text import Text

    made = Table(*columns, box=None)
    for row in rows:
        made.add_row(*(Text(printable(str(cell))) for cell in row))
    console().print(made)


def short(value: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def printable(value: str) -> str:
    """The text with control characters, but for line ends and tabs, replaced: a model can write escape sequences."""
    return "".join("\ufffd" if unicodedata.category(each) == "Cc" and each not in "\n\t" else each for each in value)
