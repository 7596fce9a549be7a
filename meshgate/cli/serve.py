"""`meshgate up` and `meshgate certs`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from meshgate.cli import output

_Port = typer.Option(min=1, max=65_535)


def up(
    config_dir: Annotated[Path | None, typer.Option(help="Where the TOML files are.", show_default=False)] = None,
    gateway_port: Annotated[int, _Port] = 8443,
    generation_port: Annotated[int, _Port] = 8451,
    embedding_port: Annotated[int, _Port] = 8452,
    classification_port: Annotated[int, _Port] = 8453,
) -> None:
    """Run the gateway and the three services on this machine until Ctrl-C."""
    from meshgate.runtime import config
    from meshgate.supervisor import layout
    from meshgate.supervisor.up import up as run

    ports = {
        "gateway": gateway_port,
        "generation": generation_port,
        "embedding": embedding_port,
        "classification": classification_port,
    }
    run(layout.Layout(config.home(), config_dir or layout.default_configs(), ports))


def certs(
    renew: Annotated[bool, typer.Option("--renew", help="Also replace those that are still good.")] = False,
    days: Annotated[int, typer.Option(help="Life of a leaf.", min=1, max=90)] = 7,
    issuer: Annotated[bool, typer.Option("--issuer", help="Also make the development issuer's key.")] = False,
) -> None:
    """Make or renew the development certificates. `up` does both by itself."""
    from certs import ensure
    from meshgate.runtime import config
    from meshgate.supervisor.bootstrap import bootstrap

    made = ensure(config.home(), life=timedelta(days=days), renew=renew)
    output.text(f"{config.home() / 'certs'}: made {', '.join(made) or 'nothing, all still good'}")
    if issuer:
        bootstrap(config.home())
