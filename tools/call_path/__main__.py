"""Counts the files whose code runs in one call, in the gateway, the service and its model process together.

The program starts a mesh with the default models and makes each call twice. It notes the functions that the mesh enters
without calls (refreshers, health checks, metrics). Then it makes each call once more and leaves those functions out.
The client's own files are not counted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from tools.call_path.mesh import Entered, Mesh

ROOT: Final = Path(__file__).parents[2]
CALLS: Final = {
    "Generate": ("generate", "Gravity is", "--max-tokens", "20"),
    "GenerateStream": ("generate", "Gravity is", "--max-tokens", "20", "--stream"),
    "Embed": ("embed", "Gravity is"),
    "Classify": ("classify", "I loved this film"),
}
"""A name for the report, and the arguments of `meshgate`."""
IDLE_S: Final = 15
"""Health checks, refreshers and load reports all run at least once in this time."""


def main() -> None:
    """Prints a table, and the files with `--list`."""
    flags = _flags()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the mesh ends too
    with tempfile.TemporaryDirectory() as folder, Mesh(flags.tree.resolve(), Path(folder), flags.offset) as mesh:
        for arguments in CALLS.values():
            mesh.call(*arguments)
            mesh.call(*arguments)
        mesh.take()
        idle = mesh.idle(IDLE_S)
        print("| call | files | functions |\n| --- | ---: | ---: |")
        for name, arguments in CALLS.items():
            mesh.take()
            mesh.call(*arguments)
            _report(name, mesh.take() - idle, flags.list)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.call_path", description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to run; it has a .venv of its own")
    parser.add_argument("--offset", type=int, default=900, help="added to the mesh's ports")
    parser.add_argument("--list", action="store_true", help="name the files, with how many functions of each ran")
    return parser.parse_args()


def _report(name: str, entered: Entered, listed: bool) -> None:
    files = sorted({file for file, _ in entered})
    print(f"| {name} | {len(files)} | {len(entered)} |")
    if listed:
        for file in files:
            print(f"    {file} {sum(1 for other, _ in entered if other == file)}")


if __name__ == "__main__":
    main()
