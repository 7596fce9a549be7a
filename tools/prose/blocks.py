"""Prose, taken out of the files that hold it: Markdown, Python's docstrings and comments, the comments of protos."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_HEADING: Final = re.compile(r"^#{1,6}\s")
_ITEM: Final = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_PRAGMA: Final = re.compile(r"^(noqa|type:|isort:|ruff:|pragma|mypy:|pyright:|!)")
_HIDDEN: Final = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"``.+?``|`[^`]*`", re.DOTALL), "CODE"),
    (re.compile(r"!?\[([^\]]*)\]\([^)]*\)"), r"\1"),
    (re.compile(r"https?://\S+"), "URL"),
    (re.compile(r'"[^"\n]*"|“[^”]*”'), "QUOTED"),
    (re.compile(r"\*\*|__"), ""),
)
"""The parts that are not the author's prose: code, addresses, quotations, markup."""


class Block(NamedTuple):
    """Some connected prose, on one line; `line` is where the file has its start."""

    line: int
    text: str


def blocks(path: Path) -> Iterator[Block]:
    """The prose of a file, by what its name ends with."""
    text = path.read_text(encoding="utf-8")
    for found in _READERS[path.suffix](text):
        plain = _plain(found.text)
        if plain:
            yield Block(found.line, plain)


def _plain(text: str) -> str:
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return " ".join(text.split())


def _markdown(text: str) -> Iterator[Block]:
    """Paragraphs, list items and cells of tables. Headings are names, so they are left out, as code is."""
    gathered: list[str] = []
    start, fenced = 0, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = bool(_FENCE.match(line))
        fenced ^= fence
        cells = line.lstrip().startswith("|")
        ends = fence or cells or not line.strip() or bool(_HEADING.match(line) or _ITEM.match(line))
        if gathered and (ends or fenced):
            yield Block(start, " ".join(gathered))
            gathered = []
        if cells and not fenced:
            yield from (Block(number, cell) for cell in re.split(r"(?<!\\)\|", line) if cell.strip(" :-"))
        elif not fenced and not fence and line.strip() and not _HEADING.match(line):
            start = start if gathered else number
            gathered.append(_ITEM.sub("", line))


def _python(text: str) -> Iterator[Block]:
    """Docstrings, those below constants and fields included, and comments."""
    yield from _docstrings(ast.parse(text))
    yield from _joined(_comments(text))


def _docstrings(tree: ast.AST) -> Iterator[Block]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from _paragraphs(node.lineno, node.value.value)


def _paragraphs(line: int, text: str) -> Iterator[Block]:
    """The paragraphs of a docstring. One that is indented deeper than the first is an example."""
    lines = text.splitlines()
    indents = [len(each) - len(each.lstrip()) for each in lines[1:] if each.strip()]
    base = min(indents, default=0)
    gathered: list[str] = []
    for number, each in enumerate([*lines, ""], line):
        example = number > line and each[base : base + 4] == "    " and not gathered
        if not each.strip() or example:
            if gathered:
                yield Block(number - len(gathered), " ".join(gathered))
            gathered = []
        else:
            gathered.append(each)


def _comments(text: str) -> Iterator[Block]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        said = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and not _PRAGMA.match(said):
            yield Block(token.start[0], said)


def _joined(comments: Iterator[Block]) -> Iterator[Block]:
    """Comments on lines that follow each other are one."""
    first, said, last = 0, "", -1
    for line, text in comments:
        if line != last + 1 and said:
            yield Block(first, said)
            said = ""
        first, said, last = (first, f"{said} {text}", line) if said else (line, text, line)
    if said:
        yield Block(first, said)


def _proto(text: str) -> Iterator[Block]:
    lines = enumerate(text.splitlines(), 1)
    yield from _joined(
        Block(number, line.partition("//")[2].strip()) for number, line in lines if line.lstrip().startswith("//")
    )


_READERS: Final = {".md": _markdown, ".py": _python, ".pyi": _python, ".proto": _proto}
SUFFIXES: Final = frozenset(_READERS)
"""The kinds of files that are read."""
