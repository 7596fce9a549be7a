"""`meshgate`: the root command and its flags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from meshgate.cli import chat, classify, encode, generate, serve
from meshgate.cli.classifier import classifier
from meshgate.cli.connection import Connection
from meshgate.cli.plugins import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Language models behind one secure gateway.",
)


@app.callback()
def root(
    ctx: typer.Context,
    target: Annotated[str, typer.Option(envvar="MESHGATE_TARGET", help="The gateway.")] = "127.0.0.1:8443",
    ca: Annotated[
        Path | None, typer.Option(envvar="MESHGATE_CA", help="The CA to believe, PEM.", show_default=False)
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="MESHGATE_TOKEN", help="Better in the environment.", show_default=False)
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with the token.", show_default=False)] = None,
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
    ctx.obj = Connection(target, ca, token, token_file, deadline)


for command in (
    generate.generate,
    chat.chat,
    encode.embed,
    classify.classify,
    encode.models,
    serve.certs,
    serve.up,
):
    app.command()(command)
app.add_typer(classifier, name="classifier")


def main() -> None:
    """The entry point."""
    app()
