"""Finding model files that came in a package, without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from meshgate.runtime.config import ConfigError

PREFIX: Final = "package:"


def locate(source: str, key: str = "model") -> str:
    """Where `source` is: `package:NAME/FOLDER` inside an installed package, else itself, a directory or hub id.

    Raises ConfigError, naming the section `key`, for a package that is not installed or lacks the folder.
    """
    if not source.startswith(PREFIX):
        return source
    name, _, folder = source.removeprefix(PREFIX).partition("/")
    found = find_spec(name)
    if found is None or found.origin is None:
        raise ConfigError(f"{key}.source: package {name} is not installed")
    path = Path(found.origin).parent / folder
    if not path.is_dir():
        raise ConfigError(f"{key}.source: package {name} has no {folder}")
    return str(path)
