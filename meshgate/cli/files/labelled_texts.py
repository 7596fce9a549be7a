"""Files of labelled texts: CSV with the columns text and label, or JSON lines with these two members."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from meshgate.cli.failures import UsageError

_COLUMNS: Final = ("text", "label")


class Labelled(NamedTuple):
    """A text to train from."""

    text: str
    label: str
    line: int
    """Of the file: that in which it ends."""


def read(path: Path) -> Iterator[Labelled]:
    """Texts and their labels, one at a time. Raises UsageError that names the line, and OSError."""
    readers = {".csv": _csv, ".jsonl": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"--file: {' or '.join(readers)} is required")
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from reader(file)
        except UnicodeDecodeError:
            raise UsageError(f"{path}: not UTF-8") from None
        except _Wrong as error:
            raise UsageError(f"{path}: {error}") from None


class _Wrong(Exception):
    """A line that can't be read: which, and what is missing."""


def _csv(file: TextIO) -> Iterator[Labelled]:
    rows = csv.DictReader(file, strict=True)
    if not rows.fieldnames:
        raise _Wrong("it is empty, and columns text and label are required")
    missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise _Wrong(f"line 1: no column {missing[0]}; the first line names the columns, with commas between them")
    try:
        for row in rows:
            yield _pair(row, rows.line_num)
    except csv.Error as error:
        raise _Wrong(f"line {rows.line_num + 1}: {error}") from None


def _json_lines(file: TextIO) -> Iterator[Labelled]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise _Wrong(f"line {number}: not JSON") from None
        if not isinstance(row, dict):
            raise _Wrong(f"line {number}: not an object")
        yield _pair(row, number)


def _pair(row: dict[str, object], number: int) -> Labelled:
    text, label = (row.get(name) for name in _COLUMNS)
    for name, value in zip(_COLUMNS, (text, label), strict=True):
        if not isinstance(value, str) or not value.strip():
            raise _Wrong(f"line {number}: no {name}")
    return Labelled(str(text), str(label), number)
