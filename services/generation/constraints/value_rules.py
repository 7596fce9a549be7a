"""Rules for keywords of any value: types, numbers, formats, references and anchors.

A rule changes a schema in place. It returns False where nothing can match the schema.
"""

from __future__ import annotations

from typing import Final

from services.generation.constraints import plain
from services.generation.constraints.keywords import (
    SCHEMA_KEYWORDS,
    SCHEMA_LIST_KEYWORDS,
    SCHEMA_MAP_KEYWORDS,
    Schema,
    UnsupportedSchema,
)

FORMATS: Final = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
)
"""The formats that llguidance enforces. By JSON Schema, all others are ignored."""
TYPE_KEYWORDS: Final = {
    "array": ("contains", "maxContains", "maxItems", "minContains", "minItems", "unevaluatedItems", "uniqueItems"),
    "object": (
        *("dependencies", "dependentRequired", "dependentSchemas", "maxProperties", "minProperties", "propertyNames"),
        "unevaluatedProperties",
    ),
    "string": ("format",),
}
"""The keywords that only constrain values of one type, by that type."""
COUNT_KEYWORDS: Final = (
    *("maxContains", "maxItems", "maxLength", "maxProperties"),
    *("minContains", "minItems", "minLength", "minProperties"),
)
"""Keywords whose value is a count."""
NUMBER_KEYWORDS: Final = ("const", "enum", "exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")
"""Keywords whose numbers are compared with the value."""


def integral_counts(schema: Schema) -> None:
    """Turns a count such as `1.0` into the integer 1."""
    for key in COUNT_KEYWORDS:
        said = schema.get(key)
        if isinstance(said, float) and said.is_integer():
            schema[key] = int(said)


def exact_numbers(schema: Schema) -> None:
    """Refuses inexact numbers: llguidance changes large ones, and ends the process for the smallest."""
    if not all(plain.exact(schema[key]) for key in NUMBER_KEYWORDS if key in schema):
        raise UnsupportedSchema("numbers can have 15 digits and be at most 9007199254740992")


def drop_other_types(schema: Schema) -> None:
    """Drops keywords that only constrain types which the schema excludes."""
    kinds = schema.get("type")
    if kinds is None:
        return
    for kind, keywords in TYPE_KEYWORDS.items():
        if kind != kinds and not (isinstance(kinds, list) and kind in kinds):
            for keyword in keywords:
                schema.pop(keyword, None)


def check_references(schema: Schema) -> None:
    """Refuses a `$ref` to anything but the place of a schema: only those were simplified."""
    said = schema.get("$ref")
    place = said.partition("#")[2] if isinstance(said, str) else ""
    if not place.startswith("/"):
        return
    inside = ""
    for step in place[1:].split("/"):
        if inside in SCHEMA_MAP_KEYWORDS or (inside in SCHEMA_LIST_KEYWORDS and step.isdigit()):
            inside = ""
        elif step in SCHEMA_MAP_KEYWORDS or step in SCHEMA_LIST_KEYWORDS or step in SCHEMA_KEYWORDS:
            inside = step
        else:
            raise UnsupportedSchema("$ref can lead to schemas alone: those of $defs, properties, items and the like")


def drop_unknown_formats(schema: Schema) -> None:
    """Drops formats that JSON Schema ignores."""
    said = schema.get("format")
    if isinstance(said, str) and said not in FORMATS:
        del schema["format"]


def drop_anchors(schema: Schema) -> None:
    """Drops keywords that only matter to references that are refused anyway, and `additionalItems` without effect."""
    schema.pop("$dynamicAnchor", None)  # a `$dynamicRef` to it is refused
    schema.pop("$vocabulary", None)
    schema.pop("$recursiveAnchor", None)  # likewise
    if "prefixItems" in schema:  # llguidance ignores additionalItems beside prefixItems
        schema.pop("additionalItems", None)
