"""Tokens and subjects that are revoked, however valid their signature.

An entry names a token by its issuer and `jti`, or a subject by its issuer and `sub`. The issuer belongs to the name:
`jti` and `sub` are unique only within their issuer (RFC 7519, sections 4.1.2 and 4.1.7), and of two trusted issuers
neither should be able to revoke the other's tokens. The tenant does not belong to the name: the owner of a stolen
account must be out of every tenant.

    {"issuer": "https://id.example", "jti": "6f1c"}                                one token
    {"issuer": "https://id.example", "subject": "bob"}                             all of Bob's, for good
    {"issuer": "https://id.example", "subject": "bob", "issued_before": 1767225600}  those he had before, not new ones

`until`, in seconds since the Unix epoch, says when an entry is no longer necessary: the `exp` of the revoked token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple, Self

from pydantic import Field, model_validator

from gateway.authentication.names import Subject, TokenId, VisibleText
from gateway.authentication.source import SourceError
from meshgate.runtime.config import Strict

MAX_ENTRIES: Final = 1_000_000
_MAX_ISSUERS: Final = 1000
_LONGEST_LEEWAY: Final = 300
"""An issuer's leeway keeps a token valid beyond its `exp`; an entry is kept as long."""

Seconds = Annotated[int, Field(ge=0, le=2**53)]


class Revoked(Strict):
    """One entry."""

    issuer: VisibleText
    jti: TokenId | None = None
    subject: Subject | None = None
    issued_before: Seconds | None = None
    """For a subject: spares tokens whose `iat` is this time or later."""
    until: Seconds | None = None
    """When the entry can be forgotten. Default: never."""
    restored: bool = False
    """In the store: takes back an earlier entry."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.jti is None) == (self.subject is None):
            raise ValueError("jti or subject is required, and not both")
        if self.issued_before is not None and self.subject is None:
            raise ValueError("issued_before is for a subject")
        return self


class Revocable(NamedTuple):
    """The names by which a verified token can be revoked."""

    issuer: str
    token_id: str | None
    subject: str
    issued_at: float | None


class Name(NamedTuple):
    """The token or subject of an entry."""

    of_token: bool
    issuer: str
    value: str
    """The token's `jti` or the subject."""


class _Revocation(NamedTuple):
    """The effect of an entry on its token or subject."""

    issued_before: float
    until: float


class RevocationList:
    """The revocations in force. A check costs a lookup or two; `revision` grows with each change."""

    def __init__(self) -> None:
        self.revision = 0
        self.issuers: set[str] = set()
        """The issuers of all entries, restored ones included; the first of them, where they are many."""
        self._tokens: dict[tuple[str, str], _Revocation] = {}
        self._subjects: dict[tuple[str, str], _Revocation] = {}

    def __len__(self) -> int:
        return len(self._tokens) + len(self._subjects)

    def covers(self, token: Revocable) -> bool:
        """Whether the token is revoked. A token without `iat` is never spared by `issued_before`."""
        if token.token_id is not None and (token.issuer, token.token_id) in self._tokens:
            return True
        mark = self._subjects.get((token.issuer, token.subject))
        return mark is not None and (token.issued_at is None or token.issued_at < mark.issued_before)

    def replace(self, entries: Iterable[Revoked]) -> None:
        """Makes `entries` the whole list. Raises SourceError, with nothing changed, where they are too many."""
        fresh = RevocationList()
        fresh.add(entries)
        if (fresh._tokens, fresh._subjects) != (self._tokens, self._subjects):
            self._tokens, self._subjects = fresh._tokens, fresh._subjects
            self.issuers = fresh.issuers
            self.revision += 1

    def add(self, entries: Iterable[Revoked]) -> None:
        """Applies `entries` to the list, in order. Raises SourceError where the list becomes too long."""
        for entry in entries:
            self._apply(entry)

    def assign(self, name: Name, mark: _Revocation | None, *, afresh: bool) -> None:
        """Applies the result of a rereading for one name; `afresh`: it was restored before `mark`, or is. Raises as
        `add` does.
        """
        known = None if afresh else self._table(name).get(name[1:])
        self._set(name, None if mark is None else _stricter(known, mark))

    def forget(self, now: float) -> None:
        """Drops entries that are no longer necessary at `now`, in seconds since the epoch."""
        for table in (self._tokens, self._subjects):
            for name in [name for name, mark in table.items() if mark.until <= now]:
                del table[name]

    def _apply(self, entry: Revoked) -> None:
        name = _name(entry)
        if len(self.issuers) < _MAX_ISSUERS:
            self.issuers.add(entry.issuer)
        known = self._table(name).get(name[1:])
        self._set(name, None if entry.restored else _stricter(known, _mark(entry)))

    def _set(self, name: Name, mark: _Revocation | None) -> None:
        """`mark` holds for `name` from now on; None takes back the earlier one."""
        table, key = self._table(name), name[1:]
        known = table.get(key)
        if mark is None:
            table.pop(key, None)
        else:
            if known is None and len(self) >= MAX_ENTRIES:
                raise SourceError(f"more than {MAX_ENTRIES} entries")
            table[key] = mark
        self.revision += mark != known

    def _table(self, name: Name) -> dict[tuple[str, str], _Revocation]:
        return self._tokens if name.of_token else self._subjects


class ListRebuild:
    """The result of a list that is reread bit by bit. It is collected apart, because only its end shows what holds:
    between an entry and its `restored` no caller may be refused.
    """

    def __init__(self) -> None:
        self._said: dict[Name, _Revocation | None] = {}
        self._restored: set[Name] = set()

    def feed(self, entries: Iterable[Revoked]) -> None:
        """Adds the next entries; new ones were applied to the RevocationList too. Raises SourceError where there are
        too many.
        """
        for entry in entries:
            name = _name(entry)
            if name not in self._said and len(self._said) >= MAX_ENTRIES:
                raise SourceError(f"more than {MAX_ENTRIES} entries")
            self._said[name] = None if entry.restored else _stricter(self._said.get(name), _mark(entry))
            if entry.restored:
                self._restored.add(name)

    def finish(self, known: RevocationList, most: int) -> bool:
        """Applies at most `most` names to `known`. True when none is left. Raises as `feed` does."""
        for _ in range(min(most, len(self._said))):
            name, mark = self._said.popitem()
            known.assign(name, mark, afresh=name in self._restored)
            self._restored.discard(name)
        return not self._said


def _name(entry: Revoked) -> Name:
    if entry.jti is not None:
        return Name(True, entry.issuer, entry.jti)
    return Name(False, entry.issuer, str(entry.subject))


def _mark(entry: Revoked) -> _Revocation:
    before = math.inf if entry.issued_before is None else entry.issued_before
    return _Revocation(before, math.inf if entry.until is None else entry.until + _LONGEST_LEEWAY)


def _stricter(known: _Revocation | None, new: _Revocation) -> _Revocation:
    """The stricter of two entries of one name: it spares less, for as long as either says."""
    if known is None:
        return new
    return _Revocation(max(known.issued_before, new.issued_before), max(known.until, new.until))
