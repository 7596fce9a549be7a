"""What commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from google.protobuf.message import Message

console = Console()


def json(message: Message, *, line: bool = False) -> None:
    """The message as protobuf JSON, and nothing else; on one line in streams."""
    from google.protobuf.json_format import MessageToJson

    typer.echo(MessageToJson(message, ensure_ascii=False, indent=None if line else 2))


def text(line: str = "", *, newline: bool = True) -> None:
    """Text as it is."""
    typer.echo(line, nl=newline)
