"""Traits of a whole schema that llguidance does not follow exactly."""

from __future__ import annotations

from typing import Any


def has_control_characters(value: Any) -> bool:
    """Whether a string in a value has a character that JSON writes only as a number (U+0001, U+007F)."""
    if isinstance(value, str):
        return any((letter < " " and letter not in "\b\f\n\r\t") or letter == "\x7f" for letter in value)
    if isinstance(value, dict):
        return any(has_control_characters(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(has_control_characters, value))


def has_open_named_object(schema: Any) -> bool:
    """Whether an object in a schema has named properties and may have further ones with unknown names."""
    if isinstance(schema, dict):
        named = any(key in schema for key in ("properties", "patternProperties", "required"))
        if named and schema.get("additionalProperties") is not False:
            return True
        return any(map(has_open_named_object, schema.values()))
    return isinstance(schema, list) and any(map(has_open_named_object, schema))
