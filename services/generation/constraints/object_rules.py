"""Rules for keywords of objects: property names, counts and dependencies. See value_rules.py for what a rule is."""

from __future__ import annotations

from typing import Any

from services.generation.constraints import plain
from services.generation.constraints.keywords import Schema, UnsupportedSchema
from services.generation.constraints.rewriting import lower_maximum, matches_everything


def rewrite_property_names(schema: Schema) -> None:
    """Drops `propertyNames` where it demands nothing, or forbids all properties where no name matches."""
    said = schema.get("propertyNames")
    if said is not None and plain.demands_nothing_of_strings(said):
        del schema["propertyNames"]
    elif said is False or (said is not None and "string" not in plain.kinds(said)):
        del schema["propertyNames"]
        lower_maximum(schema, "maxProperties", 0)


def rewrite_max_properties(schema: Schema) -> None:
    """Drops or rewrites `maxProperties`: llguidance knows it only where all named properties are required."""
    most, named = schema.get("maxProperties"), schema.get("properties", {})
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    if not isinstance(most, int) or isinstance(most, bool) or not isinstance(named, dict):
        return
    if closed and len(named) <= most:
        del schema["maxProperties"]
    elif most == 0 and not schema.get("required"):
        del schema["maxProperties"]
        schema.pop("patternProperties", None)
        schema.update(properties={}, additionalProperties=False)


def rewrite_dependencies(schema: Schema) -> None:
    """Rewrites `dependencies`, the name of `dependentRequired` and `dependentSchemas` before 2019."""
    old = schema.pop("dependencies", None)
    if isinstance(old, dict):
        for name, value in old.items():
            kind = "dependentRequired" if isinstance(value, list) else "dependentSchemas"
            schema[kind] = {**schema.get(kind, {}), name: value}
    elif old is not None:
        schema["dependencies"] = old  # not a schema: llguidance says so


def rewrite_dependent(schema: Schema) -> None:
    """Resolves dependencies on properties that are always or never there."""
    required = schema.get("required", ())
    for kind, follow in (("dependentRequired", _require), ("dependentSchemas", _also)):
        said = schema.get(kind)
        if not isinstance(said, dict):
            continue
        left = {
            name: value for name, value in said.items() if value not in ([], [name]) and not matches_everything(value)
        }
        left = {name: value for name, value in left.items() if not _never_there(schema, name)}
        for name in [name for name in left if name in required]:
            follow(schema, left.pop(name))
        schema[kind] = left
        if not left:
            del schema[kind]


def _never_there(schema: Schema, name: str) -> bool:
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    named = schema.get("properties", {})
    return closed and isinstance(named, dict) and named.get(name, False) is False


def _require(schema: Schema, names: Any) -> None:
    if isinstance(names, list):
        schema["required"] = list(dict.fromkeys([*schema.get("required", ()), *names]))


def _also(schema: Schema, other: Any) -> None:
    schema["allOf"] = [*schema.get("allOf", ()), other]


def rewrite_min_properties(schema: Schema) -> None:
    """Drops `minProperties` where the required properties suffice, and refuses it where repeated names could fool it.

    A name that the output repeats counts once in JSON but twice in llguidance. A required name can't repeat, so one
    name beyond the required ones is always another name.
    """
    least, required = schema.get("minProperties"), schema.get("required", [])
    if not isinstance(least, int) or isinstance(least, bool) or not isinstance(required, list):
        return
    names = len({name for name in required if isinstance(name, str)})
    if least <= names:
        del schema["minProperties"]
    elif least > names + 1:
        raise UnsupportedSchema("minProperties can be at most one more than the properties that are required")
