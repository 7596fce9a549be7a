"""Where the peers are: each in an environment of its own, for what they need does not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.services.contenders.place import Absent

ENVIRONMENTS: Final = Path(__file__).resolve().parents[3] / ".venv-bench"
"""Made by `make bench-services` from the lock files in peers/."""


def binary(peer: str, name: str, environments: Path = ENVIRONMENTS) -> str:
    """The path of a program in a peer's environment. Raises Absent where it is not installed whole."""
    found = environments / peer / "bin" / name
    if not (environments / peer / "installed").exists() or not found.exists():
        raise Absent("not installed; `make bench-services` says why")
    return str(found)
