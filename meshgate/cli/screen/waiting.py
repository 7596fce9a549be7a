"""A sign of life on standard error while an answer is awaited; nothing where that is no terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from meshgate.cli.screen import output

ReplyT = TypeVar("ReplyT")


def sign(what: str = "waiting for the model", *, quiet: bool = False) -> AbstractContextManager[Any]:
    """Shows `what` with a moving sign until it is left."""
    console = output.console(stderr=True)
    console.quiet = quiet or not console.is_terminal
    return console.status(what)


def until_first(replies: Iterable[ReplyT], *, quiet: bool = False) -> Iterator[ReplyT]:
    """`replies`, with a sign of life until there is the first."""
    rest = iter(replies)
    with sign(quiet=quiet):
        first = next(rest, None)
    if first is not None:
        yield first
        yield from rest
