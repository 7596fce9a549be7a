"""Audit records and verdicts, as tables for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from rich.table import Table

from gateway.audit.tools.search import UNREADABLE
from gateway.audit.tools.verify import Report
from meshgate.cli.screen import output

_COLUMNS: Final = ("event", "who", "method", "model", "outcome", "tokens")
_ROWS: Final = 1000
"""Of one table, so that no number of records has to be held."""


def records(found: Iterable[dict[str, Any]], as_json: bool) -> int:
    """Prints records as they come. Returns how many of them stand for lines that can't be read."""
    unreadable, rest = 0, iter(found)
    while rows := list(islice(rest, 1 if as_json else _ROWS)):
        unreadable += sum(record is UNREADABLE for record in rows)
        if as_json:
            output.data(rows[0])
        else:
            output.show(_table(rows))
    return unreadable


def summary(reports: Sequence[Report]) -> dict[str, Any]:
    """The verdict on all writers, and that on each."""
    bad = next((report for report in reports if report.broken), None)
    writers = [_verdict(report) for report in reports]
    totals = ("records", "segments", "checkpoints", "uncovered", "unfinished_bytes")
    return {
        "intact": bad is None,
        **{name: sum(verdict[name] for verdict in writers) for name in totals},
        "first_bad": _first_bad(bad) if bad else None,
        "writers": writers,
    }


def show(reports: Sequence[Report]) -> None:
    """Prints the verdict on each writer."""
    for report in reports:
        _show(report)


def _verdict(report: Report) -> dict[str, Any]:
    return {
        "writer": report.writer,
        "intact": report.broken is None,
        "records": report.records,
        "segments": report.segments,
        "checkpoints": report.checkpoints,
        "covered_through": report.covered,
        "uncovered": report.uncovered,
        "promised": report.promised,
        "matched": report.matched,
        "unfinished_bytes": report.unfinished_bytes,
        "key": report.key,
        "first_bad": _first_bad(report),
    }


def _first_bad(report: Report) -> dict[str, Any] | None:
    broken = report.broken
    return {"writer": report.writer, "seq": broken.seq, "why": broken.why} if broken else None


def _show(report: Report) -> None:
    table = Table(show_header=False, box=None)
    for name, value in (
        ("writer", report.writer),
        ("records", f"{report.records:,}"),
        ("segments", f"{report.segments:,}"),
        ("checkpoints", f"{report.checkpoints:,}"),
        ("not yet covered by one", f"{report.uncovered:,}"),
        ("kept elsewhere, and in it", f"{report.matched:,}" if report.matched else ""),
        ("unfinished last line", f"{report.unfinished_bytes:,} bytes" if report.unfinished_bytes else ""),
    ):
        if value:
            table.add_row(name, output.cell(value))
    output.console().print(table)
    if report.broken:
        output.styled(("broken", "bold red"), f" at {report.broken}")
    else:
        output.styled(("intact", "bold green"))
        if not report.promised and report.uncovered:
            output.styled(("its last checkpoint is of the old kind: nothing tells how many followed it", "yellow"))


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = Table("time", *_COLUMNS, box=None)
    for record in rows:
        tokens = _number(record, "input_tokens") + _number(record, "output_tokens")
        who = "/".join(str(record[name]) for name in ("tenant", "subject") if name in record)
        method = str(record.get("target") or record.get("method", "")).rpartition("/")[2]
        outcome = str(record.get("reason") or record.get("status", ""))
        cells = (_time(record), str(record.get("event", "")), who, method, str(record.get("model", "")), outcome)
        table.add_row(*map(output.cell, (*cells, tokens or "")))
    return table


def _time(record: dict[str, Any]) -> str:
    try:
        moment = datetime.fromtimestamp(_number(record, "time") / 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return "?"
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def _number(record: dict[str, Any], name: str) -> int:
    value = record.get(name, 0)
    return value if isinstance(value, int) else 0
