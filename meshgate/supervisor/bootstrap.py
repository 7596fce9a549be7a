"""What a state directory needs besides certificates before a mesh first starts in it."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

GROUP: Final = "meshgate.bootstrap"
"""Entry points called with the state directory. One makes the development issuer's key."""


def bootstrap(home: Path) -> None:
    """Calls every entry point of the group. Raises what they raise: OSError and ConfigError."""
    for entry in entry_points(group=GROUP):
        entry.load()(home)
