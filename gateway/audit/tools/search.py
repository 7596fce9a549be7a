"""Search in the logs of all writers at once, in constant memory. It verifies nothing: `verify` does. But a line that is
not spelled as the gateway writes it is no record, and the search shows it as such, whatever the query.

The bytes of most lines are enough to tell them apart. In canonical JSON `"tenant":"acme"` stands only where the tenant
is acme, because quotes in a string are escaped.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.audit.chain import segments
from gateway.audit.chain.canonical import read, record
from gateway.audit.chain.hash_chain import BrokenChain
from gateway.audit.record import KINDS, canonical

_METHOD_AT: Final = re.compile(rb'"(?:method|target)":"([^"]*)"')

Line = tuple[int, bytes]
"""A record's time and its line, without the newline."""


@dataclass(frozen=True, slots=True)
class Query:
    """The conditions of a search. All must hold."""

    since: int = 0
    """Microseconds since the Unix epoch; the first time that matches."""
    until: int = 10**18
    """The first time that no longer matches."""
    method: str = ""
    """The full name, or its last part: `Generate`. A method in an envelope matches as well."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Text fields of an AuditRecord, by name: exactly these values. ValueError for a name that is not in its schema."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.fields if KINDS.get(name) is not str]:
            raise ValueError(f"{unknown[0]}: not a text field of an audit record")


def search(root: Path, query: Query, *, newest_first: bool) -> Iterator[dict[str, Any]]:
    """The records that match `query`, of all writers by time, and UNREADABLE for each line that is no record. Raises
    OSError.
    """
    wanted = _Filter(query)
    logs = [wanted.of(_lines(path, newest_first)) for _, path in segments.writers(root)]
    for _, line in heapq.merge(*logs, key=lambda found: found[0], reverse=newest_first):
        yield content(line)


UNREADABLE: Final[dict[str, Any]] = {"event": "unreadable"}
"""Stands for a line that is not spelled as the gateway writes it: its content can't be trusted."""


def content(line: bytes) -> dict[str, Any]:
    """The record of a line without its newline, or UNREADABLE itself."""
    return record(line) or UNREADABLE


class _Filter:
    """A query as bytes."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._needles = [canonical({name: value})[1:-1] for name, value in query.fields.items()]
        if query.method:
            self._needles.append(canonical({"": query.method})[len(b'{"":"') : -1])
        self._method = canonical({"": query.method})[len(b'{"":"') : -2]

    def of(self, lines: Iterator[bytes]) -> Iterator[Line]:
        """The lines that match, with their times, and those that can't be read."""
        needles, since, until = self._needles, self._query.since, self._query.until
        time = 0
        for ended in lines:
            line = ended[:-1]
            try:
                time = read(line, 0).time
            except BrokenChain:
                yield time, line  # beside its neighbour
                continue
            for needle in needles:
                if needle not in line:
                    break
            else:
                if since <= time < until and self._of_method(line):
                    yield time, line

    def _of_method(self, line: bytes) -> bool:
        wanted = self._method
        return not wanted or any(
            name == wanted or name.rpartition(b"/")[2] == wanted for name in _METHOD_AT.findall(line)
        )


def _lines(directory: Path, newest_first: bool) -> Iterator[bytes]:
    listed = segments.listed(directory)
    if newest_first:
        for _, path in reversed(listed):
            yield from segments.lines_reversed(path)
    else:
        for _, path in listed:
            yield from (line for line in segments.lines(path) if line.endswith(b"\n") or len(line) > segments.MAX_LINE)
