"""The rewriting of a JSON schema into an equivalent one that llguidance can follow.

llguidance refuses every keyword that it does not implement. It does so even where the keyword demands nothing
(`uniqueItems: false`) or where other keywords say the same (`contains: true` is `minItems: 1`). The rules remove such
keywords. A schema that still can't be followed exactly is refused, by llguidance or by a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from services.generation.constraints.array_rules import drop_unique_items, rewrite_contains
from services.generation.constraints.keywords import (
    SCHEMA_KEYWORDS,
    SCHEMA_LIST_KEYWORDS,
    SCHEMA_MAP_KEYWORDS,
    Schema,
    UnsupportedSchema,
)
from services.generation.constraints.logic_rules import (
    rewrite_conditions,
    rewrite_not,
    rewrite_one_of,
    rewrite_unevaluated,
)
from services.generation.constraints.object_rules import (
    rewrite_dependencies,
    rewrite_dependent,
    rewrite_max_properties,
    rewrite_min_properties,
    rewrite_property_names,
)
from services.generation.constraints.value_rules import (
    check_references,
    drop_anchors,
    drop_other_types,
    drop_unknown_formats,
    exact_numbers,
    integral_counts,
)

_RULES: Final[tuple[Callable[[Schema], bool | None], ...]] = (
    integral_counts,
    exact_numbers,
    drop_other_types,
    check_references,
    drop_unknown_formats,
    drop_anchors,
    drop_unique_items,
    rewrite_contains,
    rewrite_property_names,
    rewrite_max_properties,
    rewrite_not,
    rewrite_one_of,
    rewrite_conditions,
    rewrite_dependencies,
    rewrite_dependent,
    rewrite_unevaluated,
    rewrite_min_properties,
)
"""The rules, in the order in which they are applied to each schema."""


def simplified(schema: Schema) -> Schema:
    """An equivalent schema without the keywords that demand nothing. Raises UnsupportedSchema."""
    made = _walk(schema)
    if made is False:
        raise UnsupportedSchema("nothing can match it")
    return {} if made is True else dict(made)


def _walk(schema: Any) -> Any:
    """Simplifies the schemas inside a schema, then the schema itself."""
    if not isinstance(schema, dict):
        return schema
    made = {**schema, **dict(_inner(schema))}
    for rule in _RULES:
        if rule(made) is False:
            return False
    return made


def _inner(schema: Schema) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in SCHEMA_MAP_KEYWORDS and isinstance(value, dict):
            yield key, {name: _walk(each) for name, each in value.items()}
        elif key in SCHEMA_LIST_KEYWORDS and isinstance(value, list):
            yield key, [_walk(each) for each in value]
        elif key in SCHEMA_KEYWORDS:
            yield key, _walk(value)
