"""`meshgate`: the root command and its flags."""

from __future__ import annotations

import meshgate.runtime.logs.verbosity  # noqa: F401 - before grpc

# isort: split
import os
from pathlib import Path
from typing import Annotated

import typer

from meshgate import state
from meshgate.cli import streams
from meshgate.cli.commands import chat, classify, embed, generate, up
from meshgate.cli.commands.classifier import classifier
from meshgate.cli.connection import Connection
from meshgate.cli.failures import UsageError
from meshgate.cli.plugins import Commands
from meshgate.runtime import hardening

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Language models behind one secure gateway.",
)


@app.callback()
def root(
    ctx: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(
            envvar="MESHGATE_TARGET",
            help="The gateway. Default: that of the state directory, else 127.0.0.1:8443.",
            show_default=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(envvar="MESHGATE_CA", help="The CA to believe, PEM.", show_default=False)
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="MESHGATE_TOKEN", help="Better in the environment.", show_default=False)
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(envvar="MESHGATE_TOKEN_FILE", help="A file with the token.", show_default=False)
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="MESHGATE_HOME", help="The mesh's state directory. Default: .meshgate here.", show_default=False
        ),
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds a call may take.", min=0.001, max=86_400)] = 120.0,
) -> None:
    """Flags of every command that calls the gateway."""
    if home is not None:
        os.environ["MESHGATE_HOME"] = str(home)  # which every part reads, and processes that a command starts
    elif not os.environ.get("MESHGATE_HOME", "set").strip():
        raise UsageError("MESHGATE_HOME is empty: give it a value, or unset it")
    ctx.obj = Connection(
        target if target is not None else state.target(state.home()), ca, *_chosen(ctx, token, token_file), deadline
    )


def _chosen(ctx: typer.Context, token: str | None, file: Path | None) -> tuple[str | None, Path | None]:
    """The token or its file; a flag goes before the environment. Raises UsageError for both flags."""
    flags = [name for name in ("token", "token_file") if _is_flag(ctx, name)]
    if len(flags) == 2:
        raise UsageError("--token and --token-file: one of them is enough")
    return (None if flags == ["token_file"] else token, None if flags == ["token"] else file)


def _is_flag(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


for command in (
    generate.generate,
    chat.chat,
    embed.embed,
    classify.classify,
    embed.models,
    up.certs,
    up.up,
):
    app.command()(command)
app.add_typer(classifier, name="classifier")


def main() -> None:
    """The entry point. Tokens and prompts are in this process too."""
    streams.attach()
    hardening.harden()
    app()
