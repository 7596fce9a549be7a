"""The Markdown that every page of the reference is made of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Final

Pages = dict[str, str]
"""The text of pages by their names in docs/reference."""

_CODE: Final = re.compile(r"(`[^`]*`)")


def page(title: str, *parts: str) -> str:
    """A whole page: its title, the note that it is generated, its parts."""
    note = "*Generated from the code by `make reference`; `make check` proves the page fresh.*"
    return "\n\n".join([f"# {title}", note, *(part.strip("\n") for part in parts if part.strip())]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are Markdown."""
    lines = [_row(heads), _row(["---"] * len(heads)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |".replace("|  |", "| |")


def prose(text: str | None) -> str:
    """Plain text for a cell: what Markdown or HTML would take for a sign of its own is escaped outside of code."""
    parts = _CODE.split(" ".join(inspect.cleandoc(text or "").split()))
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts).replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def code(text: str) -> str:
    """Text as code, for a cell."""
    return f"`{text}`".replace("|", "\\|")


def anchored(name: str, shown: str | None = None) -> str:
    """A name as code, with an anchor for links."""
    return f'<a id="{name}"></a>{code(shown or name)}'
