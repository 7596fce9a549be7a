"""Configuration: TOML files read into strict pydantic models.

An unknown key, a missing file or a value out of range stops the start with one readable line. In any string
`${MESHGATE_HOME}` stands for the state directory (see `home()`), and `${NAME}` for an environment variable that must be
set.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


class ConfigError(Exception):
    """The configuration can't be used; the text says which key and why."""


class Strict(BaseModel):
    """The parent of every configuration section: unknown keys are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ConfigT = TypeVar("ConfigT", bound=Strict)


def home() -> Path:
    """The directory of certificates, keys, audit logs and caches: MESHGATE_HOME, else `.meshgate` where we run."""
    return Path(os.environ.get("MESHGATE_HOME") or ".meshgate").absolute()


def load(path: Path, model: type[ConfigT]) -> ConfigT:
    """Reads a TOML file into `model`. Raises ConfigError with every problem named by its key."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    try:
        return model.model_validate(_expand(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in _problems(error))) from error


def _problems(error: ValidationError) -> list[str]:
    return [f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors(include_input=False)]


def _expand(value: Any) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _variable(found.group(1)), value)
        case list():
            return [_expand(item) for item in value]
        case dict():
            return {key: _expand(item) for key, item in value.items()}
    return value


def _variable(name: str) -> str:
    if name == "MESHGATE_HOME":
        return str(home())
    if name not in os.environ:
        raise ConfigError(f"environment variable {name} is not set")
    return os.environ[name]
