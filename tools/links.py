"""The link checker, which needs no network: every link between the project's pages, to its files and to headings.

`python -m tools.links` prints each link that leads nowhere, and fails if there is one. Addresses on the web are left
alone. Anchors are made as MkDocs makes them; an explicit `{#name}` or `<a id="name">` counts too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

ROOT: Final = Path(__file__).parents[1]
_FOREIGN: Final = frozenset(("node_modules", ".venv", ".venv-bench", "build", ".git", ".meshgate"))
_CODE: Final = re.compile(r"``.+?``|`[^`\n]*`")
_LINK: Final = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE: Final = re.compile(r"^\[[^\]]+\]:\s+(\S+)")
_HEADING: Final = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_EXPLICIT: Final = re.compile(r"\{\s*#([\w.:-]+)[^}]*\}|<a\s+(?:id|name)=\"([^\"]+)\"")
_WEB: Final = re.compile(r"^[a-z][a-z0-9+.-]*:|^//")


class Link(NamedTuple):
    """A link in a page, and the line that has it."""

    page: Path
    line: int
    target: str


def main() -> int:
    """0 when every link leads somewhere."""
    found = [problem for page in pages() for link in links(page) for problem in wrong(link)]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return int(bool(found))


def pages() -> Iterator[Path]:
    """Every Markdown file of the project."""
    for path in sorted(ROOT.rglob("*.md")):
        if not _FOREIGN & {*path.relative_to(ROOT).parts}:
            yield path


def links(page: Path) -> Iterator[Link]:
    """The links of a page, but not those to the web, and none in code."""
    for number, line in _prose(page):
        plain = _CODE.sub("", line)
        for target in (*_LINK.findall(plain), *_REFERENCE.findall(plain)):
            if not _WEB.match(target):
                yield Link(page, number, target)


def wrong(link: Link) -> Iterator[str]:
    """The problem of a link, if it has one."""
    path, _, anchor = link.target.partition("#")
    at = f"{_shown(link.page)}:{link.line}: {link.target}"
    file = (link.page.parent / unquote(path)).resolve() if path else link.page
    if not file.exists():
        yield f"{at}: no such file"
    elif not file.is_relative_to(ROOT):
        yield f"{at}: outside the project"
    elif anchor and file.suffix == ".md" and unquote(anchor) not in anchors(file):
        yield f"{at}: no such heading in {_shown(file)}"


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names of a page's headings and explicit anchors."""
    found: list[str] = []
    for _, line in _prose(page):
        explicit = [first or second for first, second in _EXPLICIT.findall(line)]
        heading = _HEADING.match(line)
        found += explicit
        if heading and not explicit:
            found.append(_numbered(slug(heading.group(1)), found))
    return frozenset(found)


def slug(heading: str) -> str:
    """The anchor of a heading: lower case, letters, digits, _ and -, as Python-Markdown's toc makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", "").replace("*", ""))
    text = re.sub(r"[^\w\s-]", "", re.sub(r"<[^>]*>", "", text).encode("ascii", "ignore").decode())
    return re.sub(r"[-\s]+", "-", text.strip().lower())


def _numbered(name: str, taken: list[str]) -> str:
    number, chosen = 0, name
    while chosen in taken:
        number += 1
        chosen = f"{name}_{number}"
    return chosen


def _prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines outside of fenced code, numbered."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = line.lstrip().startswith(("```", "~~~"))
        fenced ^= fence
        if not fenced and not fence:
            yield number, line


def _shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.as_posix()


if __name__ == "__main__":
    sys.exit(main())
