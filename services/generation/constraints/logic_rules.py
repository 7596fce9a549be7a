"""Rules for keywords that combine schemas: `not`, `oneOf`, `if` and `unevaluated...`. See value_rules.py for what a
rule is.
"""

from __future__ import annotations

from typing import Any, Final

from services.generation.constraints import plain
from services.generation.constraints.keywords import Schema
from services.generation.constraints.rewriting import matches_everything

IN_PLACE_APPLICATORS: Final = (
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "dependentSchemas",
    "not",
)
"""Keywords whose subschemas apply to the same value, and so count for `unevaluated...`."""
_EVERY_TYPE: Final = ("array", "boolean", "null", "number", "object", "string")
_BRANCHES: Final = 64
"""The most branches of a `oneOf` that are compared in pairs."""


def rewrite_not(schema: Schema) -> bool | None:
    """Drops a `not` that excludes nothing. Returns False where it excludes everything."""
    if "not" not in schema:
        return None
    if matches_everything(schema["not"]):
        return False
    if plain.disjoint(schema, schema["not"]):
        del schema["not"]
    elif _only_type(schema["not"]) and plain.kinds(schema) <= plain.kinds(schema["not"]):
        return False
    return None


def _only_type(schema: Any) -> bool:
    return isinstance(schema, dict) and plain.demands_nothing({**schema, "type": list(_EVERY_TYPE)})


def rewrite_one_of(schema: Schema) -> None:
    """Rewrites `oneOf` to `anyOf` where its branches exclude each other."""
    branches = schema.get("oneOf")
    if not isinstance(branches, list) or "anyOf" in schema or len(branches) > _BRANCHES:
        return
    if plain.exclusive([_narrowed(schema, each) for each in branches]):
        schema["anyOf"] = schema.pop("oneOf")


def _narrowed(schema: Schema, branch: Any) -> Any:
    """A branch with the type that stands beside the `oneOf`."""
    return {"type": schema["type"], **branch} if "type" in schema and isinstance(branch, dict) else branch


def rewrite_conditions(schema: Schema) -> None:
    """Resolves an `if` that is constant, and drops one on which nothing depends."""
    branches = {name: schema.get(name, True) for name in ("then", "else")}
    if "if" in schema and not matches_everything(schema["if"]) and schema["if"] is not False:
        if not all(map(matches_everything, branches.values())):
            return
    elif "if" in schema:
        chosen = branches["then" if schema["if"] is not False else "else"]
        if not matches_everything(chosen):
            schema["allOf"] = [*schema.get("allOf", ()), chosen]
    for name in ("if", "then", "else"):
        schema.pop(name, None)


def rewrite_unevaluated(schema: Schema) -> None:
    """Drops `unevaluated...` or rewrites it to `additionalProperties` and `items`, where that means the same."""
    alone = not any(key in schema for key in IN_PLACE_APPLICATORS)
    for name, same in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
        if name not in schema:
            continue
        if matches_everything(schema[name]) or (same in schema and not isinstance(schema[same], list)):
            del schema[name]
        elif alone and same not in schema and "contains" not in schema:
            schema[same] = schema.pop(name)
