"""A constraint as it was sent: its bounds, checked before any work is done for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from meshgate.errors import InvalidArgument
from meshgate.numerals import written
from meshgate.v1 import generation_pb2 as pb

SCHEMA_BYTES: Final = 65_536
REGEX_BYTES: Final = 4_096
OPTIONS: Final = 256
OPTION_BYTES: Final = 1_024
_DEPTH: Final = 64
"""Levels of a schema. The library's own parser stops at 128."""


class Constraint(NamedTuple):
    """What an output must match. Two that are equal compile to the same grammar."""

    kind: str
    """`json_schema`, `regex` or `choice`."""
    texts: tuple[str, ...]
    """The schema or expression, or the options."""

    @property
    def field(self) -> str:
        """Where in the request it is."""
        return f"constraint.{self.kind}"

    @property
    def size(self) -> int:
        """Bytes of it."""
        return sum(len(text.encode()) for text in self.texts)

    def refuse(self, why: str) -> InvalidArgument:
        """The error for a constraint that can't be followed."""
        return InvalidArgument.of(self.field, why, reason="CONSTRAINT_INVALID")


def read(message: pb.Constraint) -> Constraint | None:
    """The constraint of a request, if there is one. Raises InvalidArgument, naming the field."""
    match message.WhichOneof("kind"):
        case "json_schema":
            return _schema(message.json_schema)
        case "regex":
            _sized("constraint.regex", message.regex, REGEX_BYTES)
            return Constraint("regex", (message.regex,))
        case "choice":
            return _choice(message.choice.options)
    return None


def _schema(text: str) -> Constraint:
    found = Constraint("json_schema", (text,))
    _sized(found.field, text, SCHEMA_BYTES)
    try:
        schema = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise found.refuse("not JSON") from None
    if not isinstance(schema, dict):
        raise found.refuse("a JSON object is required")
    if _deeper(schema, _DEPTH):
        raise found.refuse(f"at most {_DEPTH} levels")
    # Ours to say how JSON is written, and what the library may do.
    schema.pop("x-guidance", None)
    return Constraint("json_schema", (json.dumps(schema),))


def _no_number(name: str) -> None:
    """Python reads NaN and Infinity, which are not JSON."""
    raise ValueError(name)


def _choice(options: Sequence[str]) -> Constraint:
    if not 1 <= len(options) <= OPTIONS:
        raise InvalidArgument.of("constraint.choice.options", f"must be from 1 to {OPTIONS} options")
    for index, option in enumerate(options):
        _sized(f"constraint.choice.options[{index}]", option, OPTION_BYTES)
    return Constraint("choice", tuple(dict.fromkeys(options)))


def _sized(field: str, text: str, most: int) -> None:
    if not 1 <= len(text.encode()) <= most:
        raise InvalidArgument.of(field, f"must be from 1 to {written(most)} bytes")


def _deeper(value: Any, levels: int) -> bool:
    """Whether a JSON value nests more than so many levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper(each, levels - 1) for each in inside)
