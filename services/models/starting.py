"""Everything that can happen between reading a model's files and serving it, as one line that says which model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from meshgate.runtime.config import ConfigError

_LONGEST: Final = 300


@contextmanager
def starting(key: str, what: str) -> Iterator[None]:
    """Makes a ConfigError of whatever the block raises. `key` is the model's section, `what` names the model or the
    step, for instance "a falcon model in its first calls".
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{key}.source: {what}: {said(error)}") from error


def said(error: BaseException) -> str:
    """The kind of an error and what it says, in one line: printable, and not too long."""
    line = " ".join(str(error).split())
    shown = "".join(each if each.isprintable() else "?" for each in line)[:_LONGEST]
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
