"""`python -m tools.prose [FILE ...]`: the prose of files, or of the whole project, against the rules.

Without files, only those that match no line of `later.txt` are read: these were written before the rules and are to be
rewritten. `--all` reads these too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from tools.prose import proselint, rules
from tools.prose.blocks import SUFFIXES, blocks

ROOT: Final = Path(__file__).parents[2]
LATER: Final = Path(__file__).with_name("later.txt")
_CODE: Final = ("protos", "meshgate", "gateway", "services", "certs", "bench", "tests", "tools")
_PARTS: Final = ("docs", *_CODE, "deploy", "examples")
_TOP: Final = ("README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY")
_GENERATED: Final = ("meshgate/v1/", "docs/reference/")
_FOREIGN: Final = ("node_modules", ".venv", "build")


def main() -> int:
    """0 when every file follows the rules."""
    flags = {flag for flag in sys.argv[1:] if flag.startswith("--")}
    chosen = [Path(name) for name in sys.argv[1:] if name not in flags]
    later = [] if chosen or "--all" in flags else LATER.read_text(encoding="utf-8").split()
    wanted = (file for file in chosen or files() if not any(fnmatch(name(file), each) for each in later))
    found = [line for file in wanted for line in findings(file)]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return int(bool(found))


def files() -> Iterator[Path]:
    """Every file whose prose is the project's own; what is generated has its prose from elsewhere."""
    yield from (path for path in (ROOT / f"{top}.md" for top in _TOP) if path.exists())
    for part in _PARTS:
        for path in sorted((ROOT / part).rglob("*")):
            if path.suffix in SUFFIXES and not name(path).startswith(_GENERATED) and not _foreign(path):
                yield path


def _foreign(path: Path) -> bool:
    return any(part in _FOREIGN for part in path.relative_to(ROOT).parts)


def name(path: Path) -> str:
    """A file as the list has it."""
    return path.resolve().relative_to(ROOT).as_posix()


def findings(path: Path) -> Iterator[str]:
    """The lines to report of one file."""
    read = list(blocks(path))
    for line, text in read:
        for sentence in rules.sentences(text):
            for advice in rules.broken(sentence):
                yield f"{name(path)}:{line}: {advice}\n    {sentence[:160]}"
    if path.suffix == ".md":
        yield from (f"{name(path)}:{line}: {advice}" for line, advice in proselint.found(name(path), read))


if __name__ == "__main__":
    sys.exit(main())
