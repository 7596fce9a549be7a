"""Commands that other packages bring: found by entry point, imported when used, so that the SDK needs none of them."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from meshgate.cli import failures

GROUP = "meshgate.commands"
_CONTROL = (typer.Exit, typer.Abort, TyperException)
"""What Typer itself turns into an exit status and a usage message."""


class Commands(TyperGroup):
    """The root: its own commands, those of plug-ins, and one place where errors become a line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, plug-ins last."""
        return [*super().list_commands(ctx), *sorted(_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, or None where what it needs is not installed."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _plugins():
            return own
        try:
            found = _plugins()[cmd_name].load()
        except ImportError:
            return None
        return _command(cmd_name, found)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command. An error that a person can act on is one line on standard error, and exit status 1."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, _CONTROL) or os.environ.get("MESHGATE_DEBUG"):
                raise
            typer.echo(failures.explain(error), err=True)
            raise typer.Exit(1) from None


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _command(name: str, found: Any) -> Any:
    """A plug-in is a Typer application or a function."""
    if not isinstance(found, typer.Typer):
        application = typer.Typer(add_completion=False)
        application.command(name)(found)
        found = application
    command = typer.main.get_command(found)
    command.name = name
    return command
