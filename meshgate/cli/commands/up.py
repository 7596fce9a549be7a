"""`meshgate up` and `meshgate certs`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from meshgate.cli.screen import output
from meshgate.services import GATEWAY, GATEWAY_PORT, SERVICES

_Port = Annotated[int | None, typer.Option(min=1, max=65_535, show_default=False)]


_PORTS = {GATEWAY: GATEWAY_PORT, **{name: service.port for name, service in SERVICES.items()}}


def _flag(part: str) -> str:
    return f"{part}_port"


def _with_port_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Gives the command a flag for the port of the gateway and of each service, and names the usual ports in its help.

    typer reads flags from a signature, and the services are in a table.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    flags = [inspect.Parameter(_flag(part), _KEYWORD, default=None, annotation=_Port) for part in _PORTS]
    command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (*own, *flags)}
    *most, last = (f"{port} ({part})" for part, port in _PORTS.items())
    command.__doc__ = f"""Run the gateway and the services on this machine until Ctrl-C.

    Ports are {", ".join(most)} and {last}, plus the offset.
    """
    return command


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


@_with_port_flags
def up(  # noqa: D103 - _with_port_flags writes its help
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
    **ports: int | None,
) -> None:
    from meshgate import state
    from meshgate.supervisor.plan import plan
    from meshgate.supervisor.up import up as run

    if home is None and offset and not os.environ.get("MESHGATE_HOME"):
        home = Path(f".meshgate-{offset}")
    if home is not None:
        os.environ["MESHGATE_HOME"] = str(home.absolute())  # which its processes read
    given = {part: ports[_flag(part)] for part in _PORTS}
    configs = config_dir or state.default_configs()
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
