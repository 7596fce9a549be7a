"""Files with a text on each line: at once for a call, in constant memory for a job."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from meshgate.cli.failures import UsageError

BOM: Final = codecs.BOM_UTF8
"""What some editors and spreadsheets write before a text; it is no part of it."""
MOST_BYTES: Final = 1_048_576
"""Of one text, as the contract says."""


class Survey(NamedTuple):
    """What a file holds."""

    lines: int
    digest: str
    """SHA-256 of the whole file."""


class Chunk(NamedTuple):
    """Some lines."""

    texts: list[str]
    end: int
    """Where in the file the next one begins."""


class Input(NamedTuple):
    """A text, and what its giver calls it."""

    text: str
    name: str
    """Such as `notes.txt: line 57` or `text 3`."""


def inputs(texts: list[str] | None, file: Path | None) -> list[Input]:
    """Texts of the command line and those of a file, whose blank lines are left out. Raises UsageError where there is
    none, with the line's number for one that is not UTF-8, and OSError.
    """
    found = [Input(text, f"text {number}") for number, text in enumerate(texts or [], 1)]
    if file is not None:
        read = enumerate(_decoded(file).split("\n"), 1)
        lined = [Input(text.removesuffix("\r"), f"{file}: line {number}") for number, text in read if text.strip()]
        if not lined:
            raise UsageError(f"{file}: no text in it; one on each line is required")
        found += lined
    if not found:
        raise UsageError("a text, or --file with one, is required")
    return found


def _decoded(file: Path) -> str:
    read = file.read_bytes().removeprefix(BOM)
    try:
        return read.decode()
    except UnicodeDecodeError as error:
        line = read.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}: line {line} is not valid UTF-8") from None


def numbered(path: Path) -> list[str]:
    """All lines of a file, where it matters which is which. Raises UsageError, with the line's number, for a line that
    can't be a text, and OSError.
    """
    most = survey(path).lines
    return [text for chunk in chunks(path, 0, most) for text in chunk.texts]


def survey(path: Path) -> Survey:
    """Reads all of a file once. Raises UsageError, with the line's number, for a line that can't be a text."""
    digest, lines = hashlib.sha256(), 0
    with path.open("rb") as file:
        while line := file.readline(MOST_BYTES + 2):
            lines += 1
            digest.update(line)
            if fault := _fault(line.removeprefix(BOM) if lines == 1 else line):
                raise UsageError(f"{path}: line {lines} {fault}")
    return Survey(lines, digest.hexdigest())


def chunks(path: Path, start: int, size: int) -> Iterator[Chunk]:
    """The lines from byte `start` on, `size` at a time."""
    with path.open("rb") as file:
        file.seek(start)
        texts: list[str] = []
        while line := file.readline():
            text = _text(line).removeprefix(BOM) if start == 0 else _text(line)
            start += len(line)
            texts.append(text.decode())
            if len(texts) == size:
                yield Chunk(texts, start)
                texts = []
        if texts:
            yield Chunk(texts, start)


def _text(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _fault(line: bytes) -> str:
    """A blank line is no text, and to leave it out would make row n of the vectors another line's."""
    text = _text(line)
    if not text.strip():
        return "is blank"
    if len(text) > MOST_BYTES:
        return f"has more than {MOST_BYTES:,} bytes"
    try:
        text.decode()
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    return ""
