"""Finding model files that came in a package, without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from meshgate.runtime.config import ConfigError

_PREFIX = "package:"


def locate(source: str) -> str:
    """Where `source` is: `package:NAME/FOLDER` inside an installed package, else itself, a directory or hub id.

    Raises ConfigError for a package that is not installed or lacks the folder.
    """
    if not source.startswith(_PREFIX):
        return source
    name, _, folder = source.removeprefix(_PREFIX).partition("/")
    found = find_spec(name)
    if found is None or found.origin is None:
        raise ConfigError(f"model.source: package {name} is not installed")
    path = Path(found.origin).parent / folder
    if not path.is_dir():
        raise ConfigError(f"model.source: package {name} has no {folder}")
    return str(path)
