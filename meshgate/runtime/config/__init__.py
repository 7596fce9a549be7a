"""Configuration: TOML files read into strict pydantic models.

An unknown key, a missing file or a value out of range stops the start with one readable line. It names the file, the
key and an allowed value. In any string `${MESHGATE_HOME}` stands for the state directory (see `home()`), and
`${NAME}` for an environment variable that must be set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, ValidationError

from meshgate.runtime.config import problems, schema, toml_text
from meshgate.runtime.files import bounded_read
from meshgate.state import home as home

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_MOST_BYTES = 16 * 1024 * 1024
"""Of a configuration file: a million limits fit."""


class ConfigError(Exception):
    """The configuration can't be used; the text says which key and why."""


def _path(value: Any) -> Any:
    if isinstance(value, str) and (not value or "\0" in value):
        raise ValueError(f"must be a path, in quotes, and {value!a} is none")
    return value


ConfigPath = Annotated[Path, BeforeValidator(_path)]
"""A file or directory. An empty text is no path: pathlib would take it for the directory where the process runs."""


class Strict(BaseModel):
    """The parent of every configuration section: unknown keys are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    _section: str = PrivateAttr("")

    def key_of(self, name: str) -> str:
        """Where the file has `name` of this section, for errors that are found after the file was read: `mesh.ca`."""
        return f"{self._section}.{name}" if self._section else name

    def placed(self, section: str) -> None:
        """Tells the section, and those in it, where they stand in the file."""
        self._section = section
        for name in type(self).model_fields:
            _place(getattr(self, name), self.key_of(name))


ConfigT = TypeVar("ConfigT", bound=Strict)


def load(path: Path, model: type[ConfigT]) -> ConfigT:
    """Reads a TOML file into `model`. Raises ConfigError with a line a problem: file, key, what would be right."""
    return parse(_read(path), path, model)


def parse(document: Mapping[str, Any], path: Path, model: type[ConfigT]) -> ConfigT:
    """Makes a `model` of what `path` says. Raises ConfigError as `load` does."""
    try:
        made = model.model_validate(_expand(dict(document), path, ()))
        lines = problems.switches(document, model)
    except ValidationError as error:
        lines = problems.problems(error, model)
    if lines:
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines))
    made.placed("")
    return made


def located(error: ConfigError, path: Path) -> list[str]:
    """The lines of an error that was found after `path` was read, each with the file to correct."""
    prefix = f"{path}: "
    return [line if line.startswith(prefix) else prefix + line for line in str(error).splitlines()]


def reason(error: OSError | ValueError) -> str:
    """Why something can't be used, with the file where the system names one, and without its number."""
    if not isinstance(error, OSError):
        return str(error)
    file = f"{error.filename}: " if error.filename else ""
    return f"{file}{error.strerror or type(error).__name__}"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = bounded_read.read(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: the configuration can't be read: {error.strerror}") from error
    try:
        return toml_text.parsed(content)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _place(value: Any, key: str) -> None:
    if isinstance(value, Strict):
        value.placed(key)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            _place(each, f"{key}.{schema.dotted([str(name)])}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            _place(each, f"{key}.{number}")


def _expand(value: Any, path: Path, at: tuple[str, ...]) -> Any:
    match value:
        case str():
            return _expanded(value, path, at)
        case list():
            return [_expand(item, path, (*at, str(number))) for number, item in enumerate(value)]
        case dict():
            return {key: _expand(item, path, (*at, key)) for key, item in value.items()}
    return value


def _expanded(text: str, path: Path, at: tuple[str, ...]) -> str:
    if "${" in _VARIABLE.sub("", text):
        raise ConfigError(
            f"{path}: {schema.dotted(at)}: after ${{ must stand a name in capital letters and }}, as in "
            "${MESHGATE_HOME}"
        )
    return _VARIABLE.sub(lambda found: _variable(found.group(1), path, at), text)


def _variable(name: str, path: Path, at: tuple[str, ...]) -> str:
    if name == "MESHGATE_HOME":
        return str(home())
    if name not in os.environ:
        raise ConfigError(f"{path}: {schema.dotted(at)}: the environment variable {name} is not set: set it")
    return os.environ[name]
