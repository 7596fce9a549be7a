"""`python -m tools.reference`: proves docs/reference fresh; with `--write` it writes the pages."""

from __future__ import annotations

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc

# isort: split
import os
import sys
from pathlib import Path
from typing import Final

from tools.reference import api, audit_record, cli, configuration, errors, metrics, sdk
from tools.reference.markdown import Pages

FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"


def main() -> int:
    """0 when every page is fresh, or was written."""
    for name in [name for name in os.environ if name.startswith("MESHGATE_")]:
        del os.environ[name]  # defaults come from the environment
    made = pages()
    if "--write" in sys.argv[1:]:
        write(made)
        return 0
    wrong = stale(made)
    sys.stderr.write("".join(f"docs/reference/{name}: stale; run `make reference`\n" for name in wrong))
    return int(bool(wrong))


def pages() -> Pages:
    """Every page of the reference."""
    made: Pages = {}
    for kind in (configuration, errors, metrics, audit_record, api, cli, sdk):
        made.update(kind.pages())
    return made


def write(made: Pages) -> None:
    """Makes the folder hold these pages and no other."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def stale(made: Pages) -> list[str]:
    """The names of pages that differ from what the code says, or that only one side has."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    return sorted(name for name in {*made, *kept} if made.get(name) != kept.get(name))


if __name__ == "__main__":
    sys.exit(main())
