"""Tables on terminals of any width: columns where whole words fit, else each row as `name: value` pairs that flow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Group
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Column, Table

_PADDING: Final = 2
"""Of each column: a blank on either side."""
_APART: Final = "  "
_INDENT: Final = "  "
_WORD: Final = re.compile(r"[^\s\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]+")
"""What must not be broken. Text in Chinese, Japanese or Korean has no blanks, and may be broken anywhere."""


def fitted(table: Table, console: Console) -> RenderableType:
    """The table as `console` has room for it: no word is broken that is shorter than a line, and no cell is cut."""
    columns = list(table.columns)
    least = [_least(column) for column in columns]
    room = console.width - sum(least) - _PADDING * len(columns)
    if room < 0:
        return Group(*_flowing(columns, console))
    for column, width in zip(columns, least, strict=True):
        # The width is ours to choose: rich takes from columns below their least width, and cuts what is in them.
        extra = min(_most(column) - width, room)
        column.width, column.overflow, room = width + extra, "fold", room - extra
    return table


def _least(column: Column) -> int:
    """The width below which a word would be broken."""
    texts = [str(column.header), *(str(cell) for cell in column.cells)]
    parts = texts if column.no_wrap else [word for text in texts for word in _WORD.findall(text)]
    return max(map(cell_len, parts), default=1)


def _most(column: Column) -> int:
    """The width at which each cell is one line."""
    return max(cell_len(line) for cell in (column.header, *column.cells) for line in str(cell).split("\n"))


def _flowing(columns: Sequence[Column], console: Console) -> Iterator[Text]:
    names = [str(column.header) for column in columns]
    for row in zip_longest(*(column.cells for column in columns), fillvalue=""):
        cells = ((name, str(cell)) for name, cell in zip(names, row, strict=True))
        pairs = [Text.assemble((f"{name}: " if name else "", "dim"), cell) for name, cell in cells if cell]
        yield from _lines(pairs, console)


def _lines(pairs: Iterable[Text], console: Console) -> Iterator[Text]:
    """Pairs side by side while there is room; the first line of a row stands out, the others are indented."""
    line = Text()
    for pair in pairs:
        for part in pair.wrap(console, max(1, console.width - len(_INDENT))):
            part.rstrip()
            if line and line.cell_len + len(_APART) + part.cell_len <= console.width:
                line = Text.assemble(line, _APART, part)
                continue
            if line:
                yield line
            line = Text.assemble(_INDENT, part) if line else part
    if line:
        yield line
