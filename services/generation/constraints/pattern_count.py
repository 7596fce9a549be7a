"""The bound on patterns and formats that hold for one string together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from services.generation.constraints.keywords import Schema, UnsupportedSchema

PATTERNS: Final = 8
"""The most patterns and formats that may hold for one string. Each doubles the time and memory of llguidance."""


def check_patterns(schema: Schema) -> None:
    """Raises UnsupportedSchema where too many patterns may hold for one string, anywhere in a schema."""
    if max(_Patterns(schema).most(schema)) > PATTERNS:
        raise UnsupportedSchema(f"at most {PATTERNS} patterns and formats can hold for one string")


class _Most(NamedTuple):
    """The number of patterns and formats that may hold for one string together."""

    here: int = 0
    """For the value itself."""
    inside: int = 0
    """For any one value inside it."""

    def __add__(self, other: _Most) -> _Most:  # type: ignore[override]  # of two schemas that hold for one value
        return _Most(min(self.here + other.here, _ENDLESS), min(self.inside + other.inside, _ENDLESS))


_ENDLESS: Final = 1000
_NONE: Final = _Most()


class _Patterns:
    """Counts the patterns and formats that may hold for one string."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._known: dict[str, _Most] = {}
        """The counts of referenced schemas. A reference to itself is not followed again; llguidance does not either."""

    def most(self, schema: Any) -> _Most:
        """The count of a schema, with everything inside it."""
        if not isinstance(schema, dict):
            return _NONE
        parts = [max(self.most(child)) for child in _children(schema)]
        own = _Most(sum(key in schema for key in ("pattern", "format")), max(parts, default=0))
        own += self._referred(schema.get("$ref"))
        for each in _list(schema.get("allOf")):
            own += self.most(each)
        for key in ("anyOf", "oneOf"):
            found = [self.most(each) for each in _list(schema.get(key))]
            own += _Most(*(max(column) for column in zip(*found, strict=True))) if found else _NONE
        return own

    def _referred(self, place: Any) -> _Most:
        if not isinstance(place, str):
            return _NONE
        if place not in self._known:
            self._known[place] = _NONE
            self._known[place] = self.most(_found(self._root, place))
        return self._known[place]


def _children(schema: Schema) -> Iterator[Any]:
    """The schemas of the values inside a value."""
    for key in ("properties", "patternProperties"):
        found = schema.get(key)
        yield from found.values() if isinstance(found, dict) else ()
    yield from _list(schema.get("prefixItems"))
    yield from _list(schema.get("items"))
    yield from (schema.get(key) for key in ("additionalProperties", "additionalItems", "items"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _found(root: Schema, place: str) -> Any:
    """The schema that a reference names; None for a broken reference, which llguidance refuses."""
    found: Any = root
    for step in place.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found
