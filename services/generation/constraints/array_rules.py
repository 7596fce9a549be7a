"""Rules for keywords of arrays: `uniqueItems` and `contains`. See value_rules.py for what a rule is."""

from __future__ import annotations

from services.generation.constraints.keywords import Schema
from services.generation.constraints.rewriting import lower_maximum, matches_everything, raise_minimum


def drop_unique_items(schema: Schema) -> None:
    """Drops `uniqueItems` where it is false or at most one item fits."""
    said = schema.get("uniqueItems")
    if said is False or (said is True and _items_at_most(schema) <= 1):
        del schema["uniqueItems"]


def _items_at_most(schema: Schema) -> float:
    most = schema.get("maxItems", float("inf"))
    closed = schema.get("items") is False
    fixed = schema.get("prefixItems", ())
    least: float = min(most if isinstance(most, int | float) else float("inf"), len(fixed) if closed else float("inf"))
    return least


def rewrite_contains(schema: Schema) -> None:
    """Rewrites `contains` to `minItems` and `maxItems` where every item matches it."""
    if "contains" not in schema:
        schema.pop("minContains", None)
        schema.pop("maxContains", None)
    elif matches_everything(schema["contains"]):
        raise_minimum(schema, "minItems", schema.pop("minContains", 1))
        if "maxContains" in schema:
            lower_maximum(schema, "maxItems", schema.pop("maxContains"))
        del schema["contains"]
    elif schema.get("minContains") == 0 and "maxContains" not in schema:
        del schema["contains"], schema["minContains"]
