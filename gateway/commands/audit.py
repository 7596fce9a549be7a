"""`meshgate audit`: read, search and verify the audit log, and match content with its digests."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from gateway.audit.chain import segments
from gateway.audit.chain.checkpoint import SignedCheckpoint
from gateway.audit.chain.external_checkpoints import kept as kept_among
from gateway.audit.keys.signing import PUBLIC_KEY, load_public_key
from gateway.audit.record import DECISIONS
from gateway.audit.tools import match as matching
from gateway.audit.tools import tail as tailing
from gateway.audit.tools.search import search as search_log
from gateway.audit.tools.verify import verify_all
from gateway.commands import audit_output as screen
from gateway.commands.audit_query import EVENTS, further, query
from gateway.routes import PUBLIC_ROUTES
from meshgate.cli.screen import output
from meshgate.runtime import config

_POLL_SECONDS: Final = 0.5
_USAGE_ERROR: Final = 2
_BROKEN: Final = 1
_SENTENCES: Final = {
    errno.ENOENT: "is not there",
    errno.EISDIR: "is a directory, and a file is required",
    errno.ENOTDIR: "is a file, and the directory of a log is required",
    errno.EACCES: "may not be read by you",
}

audit = typer.Typer(help="Read, search and verify the audit log.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Argument(help="The log's directory. Default: audit/ in the state directory.", show_default=False)
]
In = Annotated[
    Path | None,
    typer.Option("--in", help="The log's directory. Default: audit/ in the state directory.", show_default=False),
]
Text = Annotated[str | None, typer.Option(show_default=False)]
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
    except OSError as error:
        raise _failure(f"not verified: {_said(error)}") from error
    except ValueError as error:
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
    """Show the last records. Exit status 1: some lines are not as the gateway writes them."""
    where = _directory(directory)
    try:
        follower = tailing.Follower(where)
        unreadable = screen.records(tailing.last(where, count), as_json)
        while follow:
            time.sleep(_POLL_SECONDS)
            unreadable += screen.records(follower.new(), as_json)
    except OSError as error:
        raise _failure(_said(error)) from error
    except KeyboardInterrupt:
        return
    _say_unreadable(unreadable)


@audit.command()
def search(
    directory: Directory = None,
    since: Annotated[
        str | None,
        typer.Option(help="From when: 2030-01-31T12:00 (UTC), or so long ago: 15m, 1h, 7d.", show_default=False),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Until before when, said alike.", show_default=False)] = None,
    tenant: Text = None,
    subject: Text = None,
    request_id: Text = None,
    decision: Annotated[str | None, typer.Option(help=f"{' or '.join(DECISIONS)}.", show_default=False)] = None,
    reason: Annotated[str | None, typer.Option(help="As in ErrorInfo: RATE_LIMITED.", show_default=False)] = None,
    status: Annotated[
        str | None, typer.Option(help="The gRPC code's name: PERMISSION_DENIED.", show_default=False)
    ] = None,
    method: Annotated[str | None, typer.Option(help="In full or its last part: Generate.", show_default=False)] = None,
    model: Text = None,
    event: Annotated[str | None, typer.Option(help=f"{', '.join(EVENTS)}.", show_default=False)] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first. Default: newest first.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many records at most; 0: all.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Find records in the logs of all writers. All that is asked for must hold. It says when it stops at its limit.

    Exit status 1: some lines are not as the gateway writes them; 2: the question makes no sense, or there is no log.
    """
    asked = {
        "tenant": tenant,
        "subject": subject,
        "request_id": request_id,
        "decision": decision,
        "reason": reason,
        "status": status,
        "method": method,
        "model": model,
        "event": event,
    }
    where = _directory(directory)
    try:
        found = search_log(where, query(asked, since, until, time.time()), newest_first=not oldest)
        last: dict[str, Any] = {}
        unreadable = screen.records(_noted(islice(found, limit or None), last), as_json)
        more = bool(limit) and next(found, None) is not None
    except ValueError as error:
        raise _failure(str(error)) from error
    except OSError as error:
        raise _failure(_said(error)) from error
    if more:
        rest = f"--limit 0 prints all, {further(last, oldest=oldest)} goes on from here"
        output.note(f"stopped at {limit:,} record{'s' if limit > 1 else ''}, and there are more: {rest}")
    elif not last:
        output.note(f"no record in {where} is like that")
    _say_unreadable(unreadable)


@audit.command()
def match(
    request_id: Annotated[str, typer.Argument(help="Of the call.")],
    messages: Annotated[
        list[Path],
        typer.Argument(
            help="A file a message, in order: serialized protobuf, or its JSON if named .json; a .jsonl has one a line."
        ),
    ],
    reply: Annotated[bool, typer.Option("--reply", help="They are what was answered. Default: asked.")] = False,
    directory: In = None,
    keys: Annotated[
        Path | None, typer.Option(help="Of the digest keys. Default: keys/ in the state directory.", show_default=False)
    ] = None,
) -> None:
    """Tell whether these are the messages of a call. Exit status 1: they are not; 2: it can't be told.

    A message is what was sent, field by field: an empty `options` is not the same as none.
    """
    where = keys or config.home() / "keys"
    try:
        found = matching.digests_of(_directory(directory), request_id)
        if found is None:
            raise _failure("not matched: no record of that call has digests")
        contents = [each for path in messages for each in _messages(path, found.method, reply=reply)]
        same = matching.matches(where, found, "reply" if reply else "request", contents)
    except matching.KeyMissing as error:
        raise _failure(f"not matched: the key {error} is not in {where}; name its directory by --keys") from error
    except OSError as error:
        raise _failure(f"not matched: {_said(error)}") from error
    except ValueError as error:
        raise _failure(f"not matched: {error}") from error
    output.text("the same" if same else "not the same")
    raise typer.Exit(0 if same else 1)


def _noted(found: Iterable[dict[str, Any]], last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same; `last` becomes the last one."""
    for record in found:
        last.clear()
        last.update(record)
        yield record


def _say_unreadable(count: int) -> None:
    """Raises typer.Exit where there was one."""
    if count:
        lines = "1 line is" if count == 1 else f"{count:,} lines are"
        output.error(f"{lines} not written as the gateway writes them; `meshgate audit verify` names the first")
        raise typer.Exit(_BROKEN)


def _kept(given: str) -> list[SignedCheckpoint]:
    """Raises OSError or ValueError."""
    if given.lstrip().startswith("{"):
        return kept_among([given])
    with Path(given).open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        return kept_among(lines)


def _messages(path: Path, method: str, *, reply: bool) -> Iterator[bytes]:
    """Raises OSError, and ValueError for JSON that is not that of such a message."""
    if path.suffix not in (".json", ".jsonl"):
        yield path.read_bytes()
        return
    route = PUBLIC_ROUTES.get(method)
    if route is None:
        raise ValueError("JSON of a method that is not ours")
    kind = route.response_type if reply else route.request_type
    said = path.read_text(encoding="utf-8")
    for document in said.splitlines() if path.suffix == ".jsonl" else [said]:
        if document.strip():
            yield _serialised(document, kind, path)


def _serialised(document: str, kind: type[Message], path: Path) -> bytes:
    try:
        return json_format.Parse(document, kind()).SerializeToString()
    except json_format.ParseError as error:
        raise ValueError(f"{path} is not the JSON of a {kind.DESCRIPTOR.name}: {error}") from None


def _directory(given: Path | None) -> Path:
    return given or config.home() / "audit"


def _failure(message: str) -> typer.Exit:
    output.error(message)
    return typer.Exit(_USAGE_ERROR)


def _beneath(name: str | bytes | None) -> bool:
    """Whether a file would be in the state directory."""
    return name is not None and Path(os.fsdecode(name)).is_relative_to(config.home())


def _said(error: OSError) -> str:
    """A sentence on a file or directory that can't be read."""
    what = _SENTENCES.get(error.errno or 0, f"can't be read: {error.strerror or 'input failed'}")
    if isinstance(error, segments.NoLog):
        what = "has no audit log in it; name the directory of one"
    elif error.errno == errno.ENOENT and _beneath(error.filename) and not (config.home() / "audit").is_dir():
        what += f"; {config.home()} is no state directory of a mesh: --home or MESHGATE_HOME names another"
    return f"{error.filename} {what}" if error.filename else f"the log {what}"
