"""`meshgate policy revoke` and `restore`: who shall no longer be believed, written where the gateways look for it."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import redis
import typer
from pydantic import ValidationError

from gateway import redis_client
from gateway.authentication import Revoked
from gateway.authentication.revocation import revocation_writer
from gateway.commands import active_config
from gateway.commands.time_args import moment
from gateway.config import GatewayConfig
from meshgate.cli.screen import output
from meshgate.runtime import config as configs
from meshgate.runtime.config.problems import meant, problems

_USAGE_ERROR: Final = 2
_MAX_TOKEN: Final = 64 * 1024

Issuer = Annotated[str, typer.Option(help="The exact `iss` of the tokens.", show_default=False)]
Jti = Annotated[str | None, typer.Option(help="One token's id.", show_default=False)]
Subject = Annotated[str | None, typer.Option(help="All tokens of a subject, in every tenant.", show_default=False)]
Config = Annotated[Path | None, typer.Option(help=active_config.HELP, show_default=False)]


def revoke(
    issuer: Issuer = "",
    jti: Jti = None,
    subject: Subject = None,
    token: Annotated[
        str | None, typer.Option(help="The token itself; - reads it from standard input.", show_default=False)
    ] = None,
    issued_before: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="Of a subject: spare tokens issued later than `now`, an ISO 8601 time or so long ago: 15m.",
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Stop believing a token, or all of a subject's. It counts within a second, for calls under way too.

    Give a token by `--token -`: a command line stays in the shell's history and is seen by everyone on the machine.
    """
    try:
        entry = _entry(issuer, jti, subject, token, issued_before)
        path, loaded = active_config.in_use(config)
        _tell("revoked", path, _write(entry, loaded))
    except (OSError, ValueError, configs.ConfigError, redis.RedisError) as error:
        _refuse("revoked", error)


def restore(issuer: Issuer, jti: Jti = None, subject: Subject = None, config: Config = None) -> None:
    """Believe again what was revoked."""
    try:
        entry = Revoked(issuer=issuer, jti=jti, subject=subject, restored=True)
        path, loaded = active_config.in_use(config)
        _tell("restored", path, _write(entry, loaded))
    except (OSError, ValueError, configs.ConfigError, redis.RedisError) as error:
        _refuse("restored", error)


def _entry(issuer: str, jti: str | None, subject: str | None, token: str | None, issued_before: str | None) -> Revoked:
    if token is not None:
        if issuer or jti or subject or issued_before:
            raise ValueError("--token says all there is to say; leave the other options out")
        return revocation_writer.of_token(_read(token))
    before = None if issued_before is None else _seconds(issued_before)
    return Revoked(issuer=issuer, jti=jti, subject=subject, issued_before=before)


def _read(given: str) -> str:
    return (sys.stdin.read(_MAX_TOKEN) if given == "-" else given).strip().removeprefix("Bearer ")


def _seconds(text: str) -> int:
    """A moment, in whole seconds since the epoch, rounded up: what was issued in that second is revoked too."""
    now = time.time()
    return int(now if text == "now" else moment(text, now) / 1_000_000) + 1


def _check_issuer(entry: Revoked, loaded: GatewayConfig) -> None:
    """An entry of an issuer that is not configured would revoke nothing."""
    known = {issuer.issuer for issuer in loaded.issuers}
    if entry.issuer not in known:
        raise ValueError(f"the gateway knows no issuer {entry.issuer!r}{meant(entry.issuer, known)}")


def _write(entry: Revoked, loaded: GatewayConfig) -> str:
    """Writes `entry` where gateways look, and says where that is."""
    if loaded.revocation is None:
        raise ValueError("the gateway's configuration has no [revocation]")
    if not entry.restored:
        _check_issuer(entry, loaded)
    if loaded.revocation.file is not None:
        revocation_writer.write_file(loaded.revocation.file, entry)
        return str(loaded.revocation.file)
    if loaded.store is None:
        raise ValueError("the gateway's configuration has no [store]")
    asyncio.run(_send(loaded.store, entry))
    return "the store"


def _tell(what: str, path: Path, where: str) -> None:
    output.text(f"{what}: written to {where}, as {path} says")


async def _send(config: redis_client.StoreConfig, entry: Revoked) -> None:
    client = redis_client.connect(config)
    try:
        await revocation_writer.write_stream(client, config.prefix, entry)
    finally:
        await client.aclose()


def _refuse(what: str, error: Exception) -> None:
    output.error(f"not {what}: {_said(error)}")
    raise typer.Exit(_USAGE_ERROR) from None


def _said(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return problems(error, Revoked)[0]
    if isinstance(error, redis.RedisError):
        return "the store can't be asked"
    if isinstance(error, OSError):
        return f"{error.filename or 'output'}: {error.strerror or 'failed'}"
    return str(error)
