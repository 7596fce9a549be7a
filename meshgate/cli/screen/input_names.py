"""What a server calls `inputs[57]`, as the user knows it: a line of a file, or a text of the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from meshgate.cli import failures
from meshgate.errors import FieldViolation, InvalidArgument

_INPUT: Final = re.compile(r"(?:request\.)?inputs\[(\d+)\](\.text_pair|\.text|\.label)?", re.ASCII)

_ALL: Final = "inputs"
_PARTS: Final = {".text_pair": ", its second text", ".label": ", its label"}


@contextmanager
def named(
    name: Callable[[int], str], remedies: Mapping[str, str] | None = None, *, whole: str = "", parts: str = ""
) -> Iterator[None]:
    """Renames the inputs in errors of calls inside: the one at index n is `name(n)`, all of them are `whole`, if given.

    `remedies` says what helps, by the reason of an error, and `parts` where there are too many. Raises InvalidArgument
    in place of grpc.RpcError.
    """
    try:
        yield
    except Exception as error:
        failed = failures.meaning(error)
        if not isinstance(failed, InvalidArgument) or not failed.violations:
            raise
        remedy = (remedies or {}).get(failed.reason, "")
        raise _renamed(failed, name, remedy, whole, parts) from error


def _renamed(
    error: InvalidArgument, name: Callable[[int], str], remedy: str, whole: str, parts: str
) -> InvalidArgument:
    def called(found: re.Match[str]) -> str:
        return name(int(found[1])) + _PARTS.get(found[2], "")

    def changed(each: FieldViolation) -> FieldViolation:
        if each.field == _ALL:
            return FieldViolation(whole or _ALL, each.description + (remedy or parts))
        return FieldViolation(_INPUT.sub(called, each.field), each.description + remedy)

    violations = tuple(map(changed, error.violations))
    return InvalidArgument(error.message, reason=error.reason, violations=violations, request_id=error.request_id)
