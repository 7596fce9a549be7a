"""Commands that other packages bring: found by entry point, imported when used, so that the SDK needs none of them."""

from __future__ import annotations

import os
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from meshgate import terminal
from meshgate.cli import empty, failures
from meshgate.cli.screen import output

GROUP: Final = "meshgate.commands"
_HELP: Final = {
    "audit": "Read and verify the audit log.",
    "policy": "Say what the policy allows, and revoke.",
    "token": "Print a token of the development issuer.",
}
"""What help says of a plug-in, since asking it would import it."""
_EMPTY: Final = "meshgate.empty"
"""Where a context keeps the name of a flag of the root that is empty."""
_CONTROL: Final = (typer.Exit, typer.Abort, TyperException, BrokenPipeError)
"""What Typer itself turns into an exit status and a usage message."""


class Absent(TyperCommand):
    """A plug-in in a list of commands: its name and help, and where it is."""

    def __init__(self, entry: EntryPoint) -> None:
        self.entry = entry
        brought_by = f"Of the package {entry.dist.name}." if entry.dist else "Of another package."
        super().__init__(entry.name, help=_HELP.get(entry.name, brought_by))

    def present(self) -> Any:
        """The command itself. Raises UsageError where what it needs is not installed."""
        try:
            found = self.entry.load()
        except ImportError as error:
            raise failures.UsageError(f"{self.name} needs what is not installed: {error.name}") from error
        return _command(self.entry.name, found)


class Commands(TyperGroup):
    """The root: its own commands, those of plug-ins, and one place where errors become a line."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """The command line, read."""
        try:
            return super().make_context(*args, **extra)
        except TyperException as error:
            _disarm(error)
            raise

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Reads the flags before the command, and which of them is empty: it is told where errors become lines."""
        ctx.meta[_EMPTY] = empty.option(self, ctx, args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, plug-ins last."""
        return [*super().list_commands(ctx), *sorted(_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, for help: nothing is imported for it."""
        own = super().get_command(ctx, cmd_name)
        entry = None if own is not None else _plugins().get(cmd_name)
        return own if entry is None else Absent(entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run. Raises UsageError for an option of it that is empty."""
        name, command, rest = super().resolve_command(ctx, args)
        command = command.present() if isinstance(command, Absent) else command
        _refuse_empty(empty.option(command, type(ctx)(command, parent=ctx), rest))
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Runs the command. An error that a person can act on is one line on standard error and an exit status."""
        try:
            _refuse_empty(ctx.meta[_EMPTY])
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, _CONTROL):
                _disarm(error)
                raise
            if os.environ.get("MESHGATE_DEBUG"):
                output.note("".join(traceback.format_exception(error)))
            line, status = failures.explain(error, ctx.obj)
            output.error(line)
            raise typer.Exit(status) from None


def _refuse_empty(name: str) -> None:
    if name:
        raise failures.UsageError(f"{name}: it is empty; leave it out, or give it a value")


def _disarm(error: Exception) -> None:
    """Escapes what a usage message quotes, such as the name of a file."""
    if isinstance(error, TyperException):
        error.message = terminal.escaped(error.message)


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
