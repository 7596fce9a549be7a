"""The keywords of JSON Schema by the kind of their value, and the error of an unsupported schema."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]
SCHEMA_KEYWORDS: Final = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
"""Keywords whose value is a schema."""
SCHEMA_LIST_KEYWORDS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
"""Keywords whose value is a list of schemas."""
SCHEMA_MAP_KEYWORDS: Final = (
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
    "dependencies",
)
"""Keywords whose value maps names to schemas."""


class UnsupportedSchema(ValueError):
    """A schema that the output could follow only in part. The caller sees its text."""
