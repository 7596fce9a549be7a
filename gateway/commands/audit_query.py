"""What `meshgate audit search` may be asked. A word that no record can have is a mistake, not a search in vain."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gateway.audit.record import CALL_EVENTS, DECISIONS
from gateway.audit.tools.search import Query
from gateway.commands.time_args import moment
from gateway.routes import PUBLIC_ROUTES

EVENTS: Final = (
    *(*CALL_EVENTS, "refusals"),
    *("genesis", "segment", "opened", "closed", "signing_key", "gap"),
)
STATUSES: Final = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
_WORDS: Final[Mapping[str, Collection[str]]] = {"decision": DECISIONS, "event": EVENTS, "status": STATUSES}
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}", re.ASCII)


def query(asked: Mapping[str, str | None], since: str | None, until: str | None, now: float) -> Query:
    """The values that are searched for. `asked` has fields of a record, and `method`; None is not asked for.

    Raises ValueError, which names the option and its allowed values.
    """
    said = {name: value for name, value in asked.items() if value is not None}
    for name, value in said.items():
        _check(name, value)
    bounds = {name: _moment(name, text, now) for name, text in (("since", since), ("until", until)) if text is not None}
    if bounds.get("since", 0) >= bounds.get("until", 10**18):
        raise ValueError("--until: a time after that of --since is required")
    return Query(method=_method(said.pop("method", "")), fields=said, **bounds)


def further(record: Mapping[str, Any], *, oldest: bool) -> str:
    """The option with which the next search goes on after `record`."""
    time = record.get("time")
    if not isinstance(time, int):
        return ""
    at = datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time % 1_000_000, tzinfo=None)
    return f"--{'since' if oldest else 'until'} {at.isoformat(timespec='microseconds')}"


def _check(name: str, value: str) -> None:
    option = f"--{name.replace('_', '-')}"
    if not value:
        raise ValueError(f"{option}: a word to look for is required; leave the option out to look for all")
    if name in _WORDS and value not in _WORDS[name]:
        raise ValueError(f"{option}: {value!r} is none of {', '.join(_WORDS[name])}")
    if name == "reason" and not _REASON.fullmatch(value):
        raise ValueError(f"{option}: {value!r} is no reason: capital letters, digits and _, such as RATE_LIMITED")


def _method(value: str) -> str:
    """A method as a query has it: the last part, or in full."""
    names = sorted({path.rpartition("/")[2] for path in PUBLIC_ROUTES})
    full = {each for path in PUBLIC_ROUTES for each in (path, path.lstrip("/"), path.removeprefix("/meshgate.v1."))}
    if value and value not in names and value not in full:
        raise ValueError(f"--method: {value!r} is none of {', '.join(names)}")
    if "/" not in value:
        return value
    return next(path for path in PUBLIC_ROUTES if path.endswith(value.removeprefix("/")))


def _moment(name: str, text: str, now: float) -> int:
    try:
        return moment(text, now)
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None
