"""`meshgate policy`: what the gateway's configuration says of a caller, told without a gateway that runs."""

from __future__ import annotations

import meshgate.runtime.tls13  # noqa: F401 - before grpc

# isort: split
import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway import explanation, store
from gateway.authentication import Authenticator, Findings, revocations_of, thumbprint
from gateway.authorisation import Policy
from gateway.config import GatewayConfig
from gateway.explanation import Explanation, Question, Step
from gateway.revoke_commands import restore, revoke
from meshgate.runtime import config as configs
from meshgate.supervisor.layout import default_configs

_DENIED: Final = 1
_USAGE_ERROR: Final = 2
_MAX_TOKEN: Final = 64 * 1024
_VERDICTS: Final = {True: "[green]passed[/]", False: "[bold red]failed[/]", None: "[dim]-[/]"}

policy = typer.Typer(help="Say what the policy allows, and who is no longer believed.", no_args_is_help=True)
policy.command()(revoke)
policy.command()(restore)


@policy.callback()
def _group() -> None:
    """Say what the policy allows, and who is no longer believed."""


@policy.command()
def explain(
    token: Annotated[str, typer.Option(help="The caller's token; - reads it from standard input.")],
    method: Annotated[str, typer.Option(help="Service/Method; of a sealed call the one inside.")],
    model: Annotated[str, typer.Option(help="By its own name.", show_default=False)] = "",
    sealed: Annotated[bool, typer.Option("--sealed", help="The call would be sealed.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="The caller's certificate, PEM.", show_default=False)] = None,
    config: Annotated[
        Path | None, typer.Option(help="The gateway's. Default: the one that `up` uses.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a call is allowed or not, step by step. Exit status 1: it is not; 2: the question makes no sense.

    Give the token by `--token -`: a command line stays in the shell's history and is seen by everyone on the machine.
    """
    try:
        question = Question(explanation.named(method), model, sealed)
        loaded = configs.load(config or default_configs() / "gateway.toml", GatewayConfig)
        findings = asyncio.run(_examined(loaded, _token(token), _thumbprint(certificate)))
    except (OSError, ValueError, configs.ConfigError) as error:
        typer.echo(f"not explained: {_said(error)}", err=True)
        raise typer.Exit(_USAGE_ERROR) from None
    made = explanation.explain(question, findings, Policy(loaded.policy), loaded.limits)
    if as_json:
        typer.echo(json.dumps(explanation.as_json(made)))
    else:
        _show(made)
    raise typer.Exit(0 if made.allowed else _DENIED)


async def _examined(loaded: GatewayConfig, token: str, bond: str | None) -> Findings:
    """What the configured issuers and revocations say of the token now."""
    client = None if loaded.store is None else store.connect(loaded.store)
    try:
        prefix = "" if loaded.store is None else loaded.store.prefix
        revoked = revocations_of(loaded.revocation, client, prefix)
        authenticator = Authenticator(loaded.issuers, revocations=revoked)
        await authenticator.refresh()
        return authenticator.examine(f"Bearer {token}", bond)
    finally:
        if client is not None:
            await client.aclose()


def _token(given: str) -> str:
    read = sys.stdin.read(_MAX_TOKEN) if given == "-" else given
    return read.strip().removeprefix("Bearer ")


def _thumbprint(certificate: Path | None) -> str | None:
    if certificate is None:
        return None
    found = thumbprint(certificate.read_bytes())
    if found is None:
        raise ValueError("--certificate is no PEM certificate")
    return found


def _said(error: Exception) -> str:
    return error.strerror or "input failed" if isinstance(error, OSError) else str(error)


def _show(made: Explanation) -> None:
    console = Console()
    steps = Table("step", "", "reason", "", box=None)
    for step in made.steps:
        steps.add_row(step.name, _VERDICTS[step.passed], step.reason, _shown(step))
    console.print(steps)
    if made.limits:
        console.print(_limits(made))
    console.print("[bold green]allowed[/]" if made.allowed else f"[bold red]denied[/]: {made.reason}")


def _limits(made: Explanation) -> Table:
    table = Table("limit", "value", "burst", "of", box=None)
    for each in made.limits:
        burst = "" if each.burst is None else f"{each.burst:,}"
        table.add_row(escape(each.limit), f"{each.value:,g}", burst, escape(each.subject))
    return table


def _shown(step: Step) -> str:
    """A detail as it is: neither markup nor anything that a terminal would obey."""
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in step.detail))
