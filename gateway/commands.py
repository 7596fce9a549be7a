"""The gateway's commands of the `meshgate` CLI, found through the entry-point group `meshgate.commands`."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from gateway import issuer
from gateway.audit import tail as tailing
from gateway.audit.signing import PUBLIC_KEY, load_public_key
from gateway.audit.verify import Report
from gateway.audit.verify import verify as verify_log
from meshgate.runtime import config

_DURATION: Final = re.compile(r"(\d{1,9})([smhd]?)", re.ASCII)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 366 * 86_400
_COLUMNS: Final = ("event", "who", "method", "model", "outcome", "tokens")
_POLL_SECONDS: Final = 0.5
_USAGE_ERROR: Final = 2

audit = typer.Typer(help="Read and verify the audit log.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Argument(help="The log's directory. Default: audit/ in the state directory.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def token(
    tenant: Annotated[str, typer.Option(help="Whose calls they are.")] = "dev",  # a name, not a secret
    subject: Annotated[str, typer.Option(help="Who calls.")] = "developer",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated. Default: {' '.join(issuer.SCOPES)}.", show_default=False)
    ] = None,
    ttl: Annotated[str, typer.Option(help="How long it is good: 90s, 15m, 1h, 7d, or seconds.")] = "1h",
) -> None:
    """Print a token signed with the development key, which is made where it is missing."""
    scopes = " ".join(scope).split() if scope else issuer.SCOPES
    try:
        minted = issuer.mint(config.home(), tenant=tenant, subject=subject, scopes=scopes, ttl=seconds(ttl))
    except (OSError, ValueError) as error:
        raise _failure(f"no token: {error}") from error
    typer.echo(minted)


def seconds(text: str) -> int:
    """A duration in seconds: `90`, `90s`, `15m`, `1h`, `7d`. Raises ValueError outside 1 second to 366 days."""
    found = _DURATION.fullmatch(text.strip())
    value = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= value <= _LONGEST:
        raise ValueError(f"{text!r} is not a duration of 1 second to 366 days such as 90s, 15m, 1h or 7d")
    return value


@audit.command()
def verify(
    directory: Directory = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The public key, PEM. Default: that of the state directory.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the log from its first record to its last. Exit status 1: it is broken; 2: it could not be read."""
    try:
        public = load_public_key(key or config.home() / "keys" / PUBLIC_KEY)
        report = verify_log(_directory(directory), public)
    except (OSError, ValueError) as error:
        raise _failure(f"not verified: {error}") from error
    if as_json:
        typer.echo(json.dumps(_summary(report)))
    else:
        _show(report)
    raise typer.Exit(1 if report.broken else 0)


@audit.command()
def tail(
    directory: Directory = None,
    count: Annotated[int, typer.Option("-n", "--lines", min=0, max=100_000, help="How many records.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the last records."""
    where = _directory(directory)
    try:
        follower = tailing.Follower(where)
        _print(tailing.last(where, count), as_json)
        while follow:
            time.sleep(_POLL_SECONDS)
            _print(list(follower.new()), as_json)
    except OSError as error:
        raise _failure(f"no log: {error.strerror}") from error
    except KeyboardInterrupt:
        return


def _directory(given: Path | None) -> Path:
    return given or config.home() / "audit"


def _failure(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(_USAGE_ERROR)


def _summary(report: Report) -> dict[str, Any]:
    broken = {"seq": report.broken.seq, "why": report.broken.why} if report.broken else None
    return {
        "intact": report.broken is None,
        "records": report.records,
        "segments": report.segments,
        "checkpoints": report.checkpoints,
        "covered_through": report.covered,
        "uncovered": report.uncovered,
        "unfinished_bytes": report.unfinished_bytes,
        "first_bad": broken,
    }


def _show(report: Report) -> None:
    table = Table(show_header=False, box=None)
    for name, value in (
        ("records", f"{report.records:,}"),
        ("segments", f"{report.segments:,}"),
        ("checkpoints", f"{report.checkpoints:,}"),
        ("not yet covered by one", f"{report.uncovered:,}"),
    ):
        table.add_row(name, value)
    if report.unfinished_bytes:
        table.add_row("unfinished last line", f"{report.unfinished_bytes:,} bytes")
    console = Console()
    console.print(table)
    if report.broken:
        console.print(f"[bold red]broken[/] at {escape(str(report.broken))}")
    else:
        console.print("[bold green]intact[/]")


def _print(records: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for record in records:
            typer.echo(json.dumps(record))
    elif records:
        Console().print(_table(records))


def _table(records: list[dict[str, Any]]) -> Table:
    table = Table(Column("time", no_wrap=True), *_COLUMNS, box=None)
    for record in records:
        tokens = _number(record, "input_tokens") + _number(record, "output_tokens")
        who = "/".join(str(record[name]) for name in ("tenant", "subject") if name in record)
        method = str(record.get("target") or record.get("method", "")).rpartition("/")[2]
        outcome = str(record.get("reason") or record.get("status", ""))
        cells = (_time(record), str(record.get("event", "")), who, method, str(record.get("model", "")), outcome)
        table.add_row(*map(_shown, cells), str(tokens or ""))
    return table


def _shown(cell: str) -> str:
    """Text as it is: neither markup nor anything that a terminal would obey."""
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in cell))


def _time(record: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(_number(record, "time") / 1_000_000, UTC)
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def _number(record: dict[str, Any], name: str) -> int:
    value = record.get(name, 0)
    return value if isinstance(value, int) else 0
