"""The hooks of `make docs`: MkDocs calls them by name.

The site has the pages of docs/ and those at the top of the repository. A link to a file that is no page becomes the
file's path, and mermaid.js comes out of a package, so that diagrams need no network.
"""

from __future__ import annotations

import os
import re
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
TOP: Final = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""The pages at the top of the repository, and their names in the site."""
_LINK: Final = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_WEB: Final = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|#)")
_COLOURS: Final = """
{
  const initialize = mermaid.initialize;
  const line = "var(--md-mermaid-sequence-message-line-color)";
  const more = `[id$=-arrowhead] path, [id$=-crosshead] path { fill: ${line} !important; stroke: ${line} !important }
    [id$=-sequencenumber] { fill: var(--md-mermaid-sequence-number-bg-color) !important }`;
  mermaid.initialize = (config) => initialize({ ...config, themeCSS: config.themeCSS + more });
}
"""
"""Mermaid puts a diagram's id before the ids that Material's colours name: arrows were black on black."""
_SPAN: Final = re.compile(r"(^ *```.*?^ *```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages from the top of the repository, and the script that draws diagrams."""
    from mkdocs.structure.files import File

    for name, uri in TOP.items():
        if (ROOT / name).exists() and files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "assets/mermaid.js", content=_mermaid()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with links that hold in the site."""
    return linked(markdown, page.file.src_uri)


def linked(markdown: str, uri: str) -> str:
    """`markdown` of the page `uri` with its links, those in code excepted, as the site needs them."""
    source = {site: name for name, site in TOP.items()}.get(uri, f"docs/{uri}")

    def moved(match: re.Match[str]) -> str:
        return _link(match[1], match[2], source, uri)

    parts = _SPAN.split(_joined(markdown))
    return "".join(part if number % 2 else _LINK.sub(moved, part) for number, part in enumerate(parts))


def _joined(markdown: str) -> str:
    """Links whose text is code would be cut in two: `[`a`](b)` keeps its text without the ticks here."""
    return re.sub(r"\[`([^`\]]*)`\]\(", r"[<code>\1</code>](", markdown)


def _link(text: str, target: str, source: str, uri: str) -> str:
    if _WEB.match(target):
        return f"[{text}]({target})"
    path, hash_, anchor = target.partition("#")
    file = os.path.normpath(PurePosixPath(source).parent / path)
    site = TOP.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
    if site is None:
        return text if file in text else f"{text} (`{file}`)"
    return f"[{text}]({os.path.relpath(site, PurePosixPath(uri).parent)}{hash_}{anchor})"


def _mermaid() -> str:
    with as_file(files("mermaidx") / "assets" / "mermaid.js") as found:
        return found.read_text(encoding="utf-8") + _COLOURS
