"""`meshgate up` and `meshgate certs`."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from meshgate.cli.screen import output

_Port = Annotated[int | None, typer.Option(min=1, max=65_535, show_default=False)]


def up(
    config_dir: Annotated[Path | None, typer.Option(help="Where the TOML files are.", show_default=False)] = None,
    home: Annotated[
        Path | None,
        typer.Option(help="The state directory. Default: MESHGATE_HOME, else .meshgate.", show_default=False),
    ] = None,
    offset: Annotated[
        int,
        typer.Option(
            min=0, max=50_000, help="Add this to every port, and to the state directory's name: a mesh beside another."
        ),
    ] = 0,
    replicas: Annotated[
        list[str] | None,
        typer.Option(help="Processes of a service, as in generation=2. May be repeated.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Processes of the gateway; several get a store of their own.", show_default=False
        ),
    ] = None,
    gateway_port: _Port = None,
    generation_port: _Port = None,
    embedding_port: _Port = None,
    classification_port: _Port = None,
) -> None:
    """Run the gateway and the three services on this machine until Ctrl-C.

    Ports are 8443 (gateway), 8451 (generation), 8452 (embedding) and 8453 (classification), plus the offset.
    """
    from meshgate import state
    from meshgate.supervisor.paths import default_configs
    from meshgate.supervisor.plan import plan
    from meshgate.supervisor.up import up as run

    if home is None and offset and not os.environ.get("MESHGATE_HOME"):
        home = Path(f".meshgate-{offset}")
    if home is not None:
        os.environ["MESHGATE_HOME"] = str(home.absolute())  # which its processes read
    given = {
        "gateway": gateway_port,
        "generation": generation_port,
        "embedding": embedding_port,
        "classification": classification_port,
    }
    configs = config_dir or default_configs()
    run(plan(state.home(), configs, given=given, offset=offset, replicas=replicas or (), workers=workers))


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
