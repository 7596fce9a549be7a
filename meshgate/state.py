"""The state directory of a mesh, and what a mesh that runs from it leaves there for commands to find it by.

Standard library only: the command line reads it before it knows what else it needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from meshgate.runtime.files import atomic_write

DEFAULT_TARGET: Final = "127.0.0.1:8443"
_FILE: Final = "up.json"
_INSTALLED: Final = Path("/etc/meshgate")
_MAX_BYTES: Final = 65_536


@dataclass(frozen=True)
class Running:
    """A mesh that `meshgate up` started, last or now."""

    target: str
    """Its gateway, host:port."""
    config_dir: str
    """Where the configuration of its parts is."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """The address of each service by its name, as given to the gateway; empty if none was given."""
    store: str = ""
    """The URL of the store, if one was given to the gateway beside its configuration."""


def home() -> Path:
    """The directory of certificates, keys, audit logs and caches: MESHGATE_HOME, else `.meshgate` where we run."""
    return Path(os.environ.get("MESHGATE_HOME") or ".meshgate").absolute()


def running(home: Path) -> Running | None:
    """The mesh of a state directory; None where none has run or its file can't be read."""
    try:
        with (home / _FILE).open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
        return _read(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read(found: dict[str, Any]) -> Running:
    """The content of a state file; an older version has fewer fields. Raises KeyError and TypeError."""
    backends = found.get("backends", {})
    texts = (found["target"], found["config_dir"], found.get("store", ""), *backends, *backends.values())
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return Running(found["target"], found["config_dir"], dict(backends), found.get("store", ""))


def target(home: Path) -> str:
    """The gateway of a state directory's mesh; where none is known, the usual one."""
    mesh = running(home)
    return DEFAULT_TARGET if mesh is None else mesh.target


def record(home: Path, mesh: Running) -> None:
    """Leaves word of a mesh in its state directory. Raises OSError."""
    content = json.dumps(asdict(mesh), indent=2) + "\n"
    atomic_write.write(home / _FILE, content.encode(), sync=atomic_write.Sync.NOTHING)


def default_configs() -> Path:
    """Where configuration files are if no flag names a folder: deploy/config of a source tree, else /etc/meshgate.

    The container images have theirs in /etc/meshgate.
    """
    source = Path(__file__).resolve().parent.parent / "deploy" / "config"
    return source if source.is_dir() else _INSTALLED
