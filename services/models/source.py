"""From the `source` of a configuration to a directory whose files can be trusted to be weights and nothing else.

Safetensors are numbers with a table of contents. A pickle is a program: it is refused unless the model's configuration
allows it by name, and even then torch reads it with `weights_only`, which runs nothing. Code that comes beside a model
(`trust_remote_code`) is never run. A hub id is looked for in the local cache, and fetched only where `download` says
so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

from safetensors import SafetensorError, safe_open

from meshgate.runtime.config import ConfigError
from services.models import hub, packages
from services.models.config import SourceConfig

_INDEX: Final = "model.safetensors.index.json"
_WEIGHTS: Final = "model.safetensors"
_TEXTS: Final = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja", "*.safetensors")
_PICKLES: Final = ("*.bin",)


def locate(config: SourceConfig, key: str = "model") -> Path:
    """The directory of a model, with whole weights in it. `key` is the model's section in the configuration.

    Raises ConfigError, naming the key and the file.
    """
    directory = _directory(config, key)
    with reading(key, directory):
        _check(directory, key, pickles=config.allow_pickle)
    return directory


@contextmanager
def reading(key: str, directory: Path) -> Iterator[None]:
    """Turns the libraries' errors for unreadable files into ConfigError."""
    try:
        yield
    except KeyError as error:
        raise ConfigError(f"{key}.source: {directory}: its configuration lacks {error}") from error
    except SafetensorError as error:
        raise ConfigError(f"{key}.source: {directory}: damaged weights: {error}") from error
    except ImportError as error:
        raise ConfigError(f"{key}.source: {directory}: a package is not installed: {_first_line(error)}") from error
    except UnpicklingError as error:
        raise ConfigError(f"{key}.source: {directory}: a pickle of more than numbers, or a damaged one") from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: weights of other shapes
        raise ConfigError(f"{key}.source: {directory}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _directory(config: SourceConfig, key: str) -> Path:
    if config.source.startswith(packages.PREFIX):
        return Path(packages.locate(config.source, key))
    path = Path(config.source)
    if path.is_dir():
        return path.absolute()
    if path.is_absolute() or config.source.startswith(".") or config.source.count("/") > 1:
        raise ConfigError(f"{key}.source: {config.source}: no such directory")
    return hub.fetched(config, key, [*_TEXTS, *(_PICKLES if config.allow_pickle else ())])


def _check(directory: Path, key: str, *, pickles: bool) -> None:
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{key}.source: {directory}: config.json is missing")
    for name in _shards(directory):
        _check_weights(directory / name, key)
    if (directory / _WEIGHTS).is_file() or (directory / _INDEX).is_file():
        return
    found = sorted(file.name for file in directory.glob("pytorch_model*.bin"))
    if not found:
        raise ConfigError(f"{key}.source: {directory}: {_WEIGHTS} is missing")
    if not pickles:
        raise ConfigError(
            f"{key}.source: {directory}: {found[0]} is a pickle, which can hold a program: convert it to safetensors, "
            f"or set {key}.allow_pickle"
        )


def _shards(directory: Path) -> list[str]:
    """The files of weights that there have to be, or are."""
    index = directory / _INDEX
    if not index.is_file():
        return [_WEIGHTS] if (directory / _WEIGHTS).is_file() else []
    return sorted({Path(name).name for name in json.loads(index.read_bytes())["weight_map"].values()})


def _check_weights(file: Path, key: str) -> None:
    """Reads the table of contents, which says how long the file is."""
    if not file.is_file():
        raise ConfigError(f"{key}.source: {file.parent}: {file.name} is missing")
    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        raise ConfigError(f"{key}.source: {file.parent}: {file.name} is damaged: {error}") from error
