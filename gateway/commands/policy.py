"""`meshgate policy`: what the gateway's configuration says of a caller, told without asking the gateway."""

from __future__ import annotations

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc

# isort: split
import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from gateway import redis_client
from gateway.authentication import Authenticator, TokenReport, revocations_of, thumbprint
from gateway.authorisation import explain as explanation
from gateway.authorisation import references
from gateway.authorisation.explain import AppliedLimit, Explanation, ListedModels, Question
from gateway.authorisation.policy import Policy
from gateway.commands import active_config
from gateway.commands.revoke import restore, revoke
from gateway.config import GatewayConfig
from gateway.forwarding.backend import Backend
from gateway.forwarding.model_catalogue import ModelCatalogue
from meshgate.cli.screen import output
from meshgate.runtime import config as configs

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
    model: Annotated[str, typer.Option(help="By its own name or an alias.", show_default=False)] = "",
    sealed: Annotated[bool, typer.Option("--sealed", help="The call would be sealed.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="The caller's certificate, PEM.", show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(help=active_config.HELP, show_default=False)] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=HOST:PORT", help="Where a service is, as the gateway was told.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a call is allowed or not, step by step. Exit status 1: it is not; 2: the question makes no sense.

    The services are asked, as the gateway asks them, which models they have.

    Give the token by `--token -`: a command line stays in the shell's history and is seen by everyone on the machine.
    """
    try:
        question = Question(explanation.named(method), model, sealed)
        path, loaded = active_config.in_use(config, backend or ())
        made = asyncio.run(_explained(question, loaded, _token(token), _thumbprint(certificate)))
    except (OSError, ValueError, configs.ConfigError) as error:
        output.error(f"not explained: {_said(error)}")
        raise typer.Exit(_USAGE_ERROR) from None
    made = replace(made, configuration=str(path))
    if as_json:
        output.data(explanation.as_json(made))
    else:
        _show(made)
    raise typer.Exit(0 if made.allowed else _DENIED)


async def _explained(question: Question, loaded: GatewayConfig, token: str, bond: str | None) -> Explanation:
    findings, models = await asyncio.gather(_examined(loaded, token, bond), _models(loaded))
    made = explanation.explain(question, findings, Policy(loaded.policy), loaded.limits, models)
    missing = [name for name in loaded.backends if not models.reached(name)]
    made.notes.extend(references.check_defaults(loaded.policy))
    if missing:
        made.notes.append(f"services that were not reached, so that their models are not known: {', '.join(missing)}")
    else:
        made.notes.extend(map(str, references.unmatched(loaded.policy, loaded.limits, models.listed())))
    return made


async def _models(loaded: GatewayConfig) -> ListedModels:
    """The models that the services list, asked once with the gateway's own certificate."""
    try:
        backends = {name: Backend(name, section, loaded.mesh) for name, section in loaded.backends.items()}
    except (OSError, configs.ConfigError):
        return explanation.NO_SERVICES  # without the gateway's certificate no service would answer
    try:
        found = ModelCatalogue(backends, _unheard)
        await found.ask()
        return found
    finally:
        await asyncio.gather(*(backend.close() for backend in backends.values()))


async def _unheard(_backend: str, _serving: bool) -> None:
    """Does nothing: the command does not wait for services to come or go."""


async def _examined(loaded: GatewayConfig, token: str, bond: str | None) -> TokenReport:
    """The verdict of the configured issuers and revocations on the token now."""
    client = None if loaded.store is None else redis_client.connect(loaded.store)
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
    if isinstance(error, OSError):
        return f"{error.filename or 'input'}: {error.strerror or 'failed'}"
    return str(error)


def _show(made: Explanation) -> None:
    steps = Table("step", "", "reason", "", box=None)
    for step in made.steps:
        steps.add_row(step.name, _VERDICTS[step.passed], output.cell(step.reason), output.cell(step.detail))
    output.show(steps)
    if made.limits:
        rows = [(each.limit, f"{each.value:,g}", _burst(each), each.subject) for each in made.limits]
        output.table(("limit", "value", "burst", "of"), rows)
    for note in made.notes:
        output.styled(("note", "yellow"), f": {note}")
    if made.configuration:
        output.styled(("by " + made.configuration, "dim"))
    if made.allowed:
        output.styled(("allowed", "bold green"))
    else:
        output.styled(("denied", "bold red"), f": {made.reason}")


def _burst(limit: AppliedLimit) -> str:
    return "" if limit.burst is None else f"{limit.burst:,}"
