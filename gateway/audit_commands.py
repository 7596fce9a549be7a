"""`meshgate audit`: read, search and verify the audit log, and match content with its digests."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format

from gateway import audit_screen as screen
from gateway.audit import match as matching
from gateway.audit import tail as tailing
from gateway.audit.checkpoint import SignedCheckpoint
from gateway.audit.search import Query
from gateway.audit.search import search as search_log
from gateway.audit.signing import PUBLIC_KEY, load_public_key
from gateway.audit.verify import verify_all
from gateway.audit.witness import kept as kept_among
from gateway.moments import moment
from gateway.routes import PUBLIC_ROUTES
from meshgate.cli import output
from meshgate.runtime import config

_POLL_SECONDS: Final = 0.5
_USAGE_ERROR: Final = 2
_FIELDS: Final = ("tenant", "subject", "request_id", "decision", "reason", "status", "model", "event")

audit = typer.Typer(help="Read, search and verify the audit log.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Argument(help="The log's directory. Default: audit/ in the state directory.", show_default=False)
]
In = Annotated[
    Path | None,
    typer.Option("--in", help="The log's directory. Default: audit/ in the state directory.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a line a record.")]


@audit.command()
def verify(
    directory: Directory = None,
    key: Annotated[
        Path | None,
        typer.Option(help="The first public key, PEM. Default: that of the state directory.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LINE|FILE",
            help="Checkpoints kept elsewhere, such as a process log; the log must contain them. May be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify the logs of all writers from first record to last. Exit status 1: one is broken; 2: could not be read."""
    try:
        public = load_public_key(key or config.home() / "keys" / PUBLIC_KEY)
        kept = [signed for given in checkpoint or () for signed in _kept(given)]
        reports = verify_all(_directory(directory), public, kept)
    except (OSError, ValueError) as error:
        raise _failure(f"not verified: {error}") from error
    if as_json:
        output.data(screen.summary(reports))
    else:
        screen.show(reports)
    raise typer.Exit(1 if any(report.broken for report in reports) else 0)


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
        screen.records(tailing.last(where, count), as_json)
        while follow:
            time.sleep(_POLL_SECONDS)
            screen.records(follower.new(), as_json)
    except OSError as error:
        raise _failure(f"no log: {error.strerror}") from error
    except KeyboardInterrupt:
        return


@audit.command()
def search(
    directory: Directory = None,
    since: Annotated[str, typer.Option(help="From when: 2030-01-31T12:00 (UTC), or so long ago: 15m, 1h, 7d.")] = "",
    until: Annotated[str, typer.Option(help="Until before when, said alike.")] = "",
    tenant: Annotated[str, typer.Option()] = "",
    subject: Annotated[str, typer.Option()] = "",
    request_id: Annotated[str, typer.Option()] = "",
    decision: Annotated[str, typer.Option(help="allow or deny.")] = "",
    reason: Annotated[str, typer.Option(help="As in ErrorInfo: RATE_LIMITED.")] = "",
    status: Annotated[str, typer.Option(help="The gRPC code's name: PERMISSION_DENIED.")] = "",
    method: Annotated[str, typer.Option(help="In full or its last part: Generate.")] = "",
    model: Annotated[str, typer.Option()] = "",
    event: Annotated[str, typer.Option(help="admitted, ended, refused, gap, ...")] = "",
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first. Default: newest first.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many records at most; 0: all.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Find records in the logs of all writers. All that is asked for must hold."""
    asked = (tenant, subject, request_id, decision, reason, status, model, event)
    fields = {name: value for name, value in zip(_FIELDS, asked, strict=True) if value}
    try:
        query = _query(since, until, method, fields)
        found = search_log(_directory(directory), query, newest_first=not oldest)
        screen.records(islice(found, limit or None), as_json)
    except ValueError as error:
        raise _failure(str(error)) from error
    except OSError as error:
        raise _failure(f"no log: {error.strerror}") from error


@audit.command()
def match(
    request_id: Annotated[str, typer.Argument(help="Of the call.")],
    messages: Annotated[
        list[Path], typer.Argument(help="A file a message, in order: serialized protobuf, or its JSON if named .json.")
    ],
    reply: Annotated[bool, typer.Option("--reply", help="They are what was answered. Default: asked.")] = False,
    directory: In = None,
    keys: Annotated[
        Path | None, typer.Option(help="Of the digest keys. Default: keys/ in the state directory.", show_default=False)
    ] = None,
) -> None:
    """Tell whether these are the messages of a call. Exit status 1: they are not; 2: it can't be told."""
    try:
        found = matching.digests_of(_directory(directory), request_id)
        if found is None:
            raise _failure("no record of that call has digests")
        contents = [_message(path, found.method, reply=reply) for path in messages]
        same = matching.matches(keys or config.home() / "keys", found, "reply" if reply else "request", contents)
    except (OSError, ValueError, json_format.ParseError) as error:
        raise _failure(f"not matched: {error}") from error
    output.text("the same" if same else "not the same")
    raise typer.Exit(0 if same else 1)


def _kept(given: str) -> list[SignedCheckpoint]:
    """Raises OSError or ValueError."""
    if given.lstrip().startswith("{"):
        return kept_among([given])
    with Path(given).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return kept_among(lines)


def _query(since: str, until: str, method: str, fields: dict[str, str]) -> Query:
    now = time.time()
    bounds: dict[str, Any] = {}
    if since:
        bounds["since"] = moment(since, now)
    if until:
        bounds["until"] = moment(until, now)
    return Query(method=method, fields=fields, **bounds)


def _message(path: Path, method: str, *, reply: bool) -> bytes:
    if path.suffix != ".json":
        return path.read_bytes()
    route = PUBLIC_ROUTES.get(method)
    if route is None:
        raise ValueError("JSON of a method that is not ours")
    made = (route.response_type if reply else route.request_type)()
    return json_format.Parse(path.read_bytes(), made).SerializeToString()


def _directory(given: Path | None) -> Path:
    return given or config.home() / "audit"


def _failure(message: str) -> typer.Exit:
    output.error(message)
    return typer.Exit(_USAGE_ERROR)
