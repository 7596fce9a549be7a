"""proselint over the text of pages: archaisms, redundancy, clichés, jargon."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

from proselint.checks import __register__
from proselint.config import DEFAULT, Config
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

from tools.prose.blocks import Block

_OFF: Final = ("typography", "lexical_illusions", "spelling", "dates_times")
"""Checks that take ASCII quotes, figures in tables and ranges of dates for mistakes."""
_UNWANTED: Final = ("weasel_words.very", "redundancy.misc.after_the_deadline")
"""The first quotes a joke; the second takes "a sink down" for a verb."""


def found(name: str, blocks: Sequence[Block]) -> Iterator[tuple[int, str]]:
    """The line of a block, and what proselint says of it."""
    text = "\n".join(block.text for block in blocks)
    _registered()
    for result in LintFile(name, text).lint(_config()) if text else ():
        if result.check_result.check_path not in _UNWANTED:
            yield blocks[result.pos[0] - 1].line, result.check_result.message


@cache
def _registered() -> None:
    CheckRegistry().register_many(__register__)


@cache
def _config() -> Config:
    return {**DEFAULT, "checks": {**DEFAULT["checks"], **dict.fromkeys(_OFF, False)}}
