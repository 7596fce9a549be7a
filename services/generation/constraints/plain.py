"""What is plain to see of JSON schemas: one demands nothing, two exclude each other, a number is kept as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

_SAYS_NOTHING: Final = frozenset(
    (
        *("$comment", "contentEncoding", "contentMediaType", "default", "deprecated", "description", "examples"),
        *("readOnly", "title", "writeOnly"),
    )
)
"""Annotations."""
_TYPES: Final = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_EMPTY: Final = {"minItems": 0, "minLength": 0, "minProperties": 0, "uniqueItems": False, "required": []}
"""Keywords with the value that demands nothing."""
_LARGEST: Final = 2**53
"""The library reads numbers as floating-point ones."""
_DIGITS: Final = 15
"""The significant digits that any number keeps on its way through one."""


def demands_nothing(schema: Any) -> bool:
    """Whether every value matches a schema, as far as that is plain to see."""
    if not isinstance(schema, dict):
        return schema is True
    return all(_nothing(key, value) for key, value in schema.items())


def demands_nothing_of_strings(schema: Any) -> bool:
    """As `demands_nothing`, for a schema that only strings are held against."""
    if not isinstance(schema, dict):
        return schema is True
    kinds = schema.get("type")
    if kinds is not None and "string" not in (kinds if isinstance(kinds, list) else [kinds]):
        return False
    bounds = ("maxItems", "maximum", "minItems", "minimum", "minProperties", "maxProperties", "required")
    rest = {key: value for key, value in schema.items() if key not in (*bounds, "type", "properties")}
    return demands_nothing(rest)


def _nothing(key: str, value: Any) -> bool:
    match key:
        case "type":
            return isinstance(value, list) and set(map(str, value)) >= _TYPES - {"integer"}
        case "allOf" | "anyOf":
            test = all if key == "allOf" else any
            return isinstance(value, list) and test(map(demands_nothing, value))
        case "properties" | "patternProperties":
            return isinstance(value, dict) and all(map(demands_nothing, value.values()))
    return key in _SAYS_NOTHING or (key in _EMPTY and value == _EMPTY[key])


def exclusive(schemas: list[Any]) -> bool:
    """Whether no value can match two of these schemas, as far as that is plain to see."""
    return all(disjoint(one, other) for one, other in combinations(schemas, 2))


def disjoint(one: Any, other: Any) -> bool:
    """Whether no value can match both schemas, as far as that is plain to see."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return one is False or other is False
    if not kinds(one) & kinds(other):
        return True
    values = _values(one), _values(other)
    if values[0] is not None and values[1] is not None:
        return not values[0] & values[1]
    return kinds(one) <= {"number", "integer"} >= kinds(other) and (_below(one, other) or _below(other, one))


def kinds(schema: Any) -> frozenset[str]:
    """The types of the values that can match a schema. An integer is a number too."""
    if not isinstance(schema, dict):
        return frozenset() if schema is False else _TYPES
    said = schema.get("type", list(_TYPES))
    named = frozenset(map(str, said if isinstance(said, list) else [said]))
    allowed = named | {"integer"} if "number" in named else named
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return allowed if not isinstance(values, list) else allowed & frozenset(map(_kind, values))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if value == value // 1 else "number"
    return {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "null")


def _values(schema: Any) -> frozenset[str] | None:
    """The values that can match, written so that equal ones are equal; None where they are not named."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return frozenset(map(_written, values)) if isinstance(values, list) else None


def _written(value: Any) -> str:
    same: Any = json.loads(json.dumps(value), parse_float=lambda text: _whole(float(text)))
    return json.dumps(same, sort_keys=True)


def _whole(value: float) -> float:
    return int(value) if value.is_integer() else value


def _below(one: Any, other: Any) -> bool:
    """Whether the range of one ends before the other's begins."""
    ends = [(one[key], key == "maximum") for key in ("maximum", "exclusiveMaximum") if _number(one.get(key))]
    starts = [(other[key], key == "minimum") for key in ("minimum", "exclusiveMinimum") if _number(other.get(key))]
    return any(
        end < start or (end == start and not (closed and begun)) for end, closed in ends for start, begun in starts
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def exact(value: Any) -> bool:
    """Whether every number in a JSON value stays what it is on its way through the library."""
    return all(abs(each) <= _LARGEST and _short(each) for each in _numbers(value))


def _short(value: float) -> bool:
    return isinstance(value, int) or float(f"{value:.{_DIGITS}g}") == value


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _numbers(each)
    elif _number(value):
        yield value
