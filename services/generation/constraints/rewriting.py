"""Helpers that the rules share."""

from __future__ import annotations

from typing import Any

from services.generation.constraints import plain
from services.generation.constraints.keywords import Schema


def matches_everything(schema: Any) -> bool:
    """Whether every value matches a schema, as far as plain.py can tell."""
    return plain.demands_nothing(schema)


def raise_minimum(schema: Schema, key: str, least: Any) -> None:
    """Raises a schema's lower bound to `least`, where it is less."""
    schema[key] = max(schema.get(key, 0), least)


def lower_maximum(schema: Schema, key: str, most: Any) -> None:
    """Lowers a schema's upper bound to `most`, where it is more or absent."""
    schema[key] = min(schema.get(key, most), most)
