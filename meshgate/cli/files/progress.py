"""How far a bulk job got: the side file that lets the same command go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from meshgate.cli.failures import UsageError
from meshgate.cli.files import npy, text_lines
from meshgate.runtime.files import atomic_write

DTYPES: Final = {"float32": "<f4", "float16": "<f2"}
"""Numbers as a flag calls them, and as numpy does."""


@dataclass(frozen=True)
class Options:
    """What makes vectors what they are."""

    model: str = ""
    dimensions: int | None = None
    prompt_name: str = ""
    truncate: bool = False
    dtype: str = "float32"


@dataclass(frozen=True)
class Progress:
    """How far a job got: the side file."""

    lines: int
    digest: str
    options: Options
    done: int = 0
    """Vectors on the disk."""
    offset: int = 0
    """Where in the texts the next line begins."""
    columns: int = 0
    model: str = ""
    """Who answered."""

    @property
    def shape(self) -> npy.Shape:
        """Of the whole file."""
        return npy.Shape(self.lines, self.columns, DTYPES[self.options.dtype])

    def save(self, path: Path) -> None:
        """Replaces the side file, whole or not at all."""
        atomic_write.write(path, json.dumps(asdict(self)).encode())


def side_file(out: Path) -> Path:
    """Where a job's progress is kept."""
    return out.with_name(f"{out.name}.progress")


def begin(texts: Path, out: Path, options: Options) -> Progress:
    """The job as it was left, or a new one. Raises UsageError for what can't be, or can't be the same."""
    found = text_lines.survey(texts)
    if not found.lines:
        raise UsageError(f"{texts}: there is no text in it")
    side = side_file(out)
    if side.is_file():
        return _resumed(side, texts, out, Progress(found.lines, found.digest, options))
    if out.exists():
        raise UsageError(f"{out}: is there already")
    progress = Progress(found.lines, found.digest, options)
    progress.save(side)
    return progress


def _resumed(side: Path, texts: Path, out: Path, asked: Progress) -> Progress:
    try:
        saved = json.loads(side.read_text(encoding="utf-8"))
        kept = Progress(**{**saved, "options": Options(**saved["options"])})
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{side}: is no progress of this command; remove it to begin anew") from None
    if (kept.lines, kept.digest) != (asked.lines, asked.digest):
        raise UsageError(f"{texts}: has changed since {out} was begun")
    if kept.options != asked.options:
        raise UsageError(f"{out}: was begun with other options")
    if kept.done and (not out.is_file() or out.stat().st_size != kept.shape.file_bytes):
        raise UsageError(f"{out}: is not as it was left; remove {side.name} to begin anew")
    if not kept.done:
        out.unlink(missing_ok=True)  # begun, and nothing in it counts
    return kept
