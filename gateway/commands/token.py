"""The gateway's commands of the `meshgate` CLI, found through the entry-point group `meshgate.commands`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import typer

from gateway.authentication import names
from gateway.commands import dev_issuer
from gateway.commands.audit import audit
from gateway.commands.time_args import seconds
from meshgate.cli.screen import output
from meshgate.runtime import config

__all__ = ["audit", "seconds", "token"]

_USAGE_ERROR: Final = 2


def token(
    tenant: Annotated[str, typer.Option(help="Whose calls they are.")] = "dev",  # a name, not a secret
    subject: Annotated[str, typer.Option(help="Who calls.")] = "developer",
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"May be repeated. Default: {' '.join(dev_issuer.SCOPES)}.", show_default=False),
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it is good: 90s, 15m, 1h, 7d, or seconds.")] = "1h",
) -> None:
    """Print a token signed with the development issuer's key, which `up` made in the state directory."""
    scopes = " ".join(scope).split() if scope else dev_issuer.SCOPES
    try:
        _check(tenant, subject, scopes)
        minted = dev_issuer.mint(config.home(), tenant=tenant, subject=subject, scopes=scopes, ttl=seconds(ttl))
    except (OSError, ValueError, config.ConfigError) as error:
        output.error(f"no token: {_said(error)}")
        raise typer.Exit(_USAGE_ERROR) from error
    output.text(minted)


def _check(tenant: str, subject: str, scopes: Iterable[str]) -> None:
    """Raises ValueError for what the gateway would refuse in a token."""
    if not names.is_tenant(tenant):
        raise ValueError("--tenant: 1 to 128 characters of ASCII are required, a letter or digit first, no space")
    if not names.is_visible(subject, names.MAX_SUBJECT):
        raise ValueError(f"--subject: must be {names.visible_rule(names.MAX_SUBJECT)}")
    if not all(map(names.is_scope, scopes)):
        raise ValueError("--scope: words of ASCII are required, without quotes or backslashes")


def _said(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
