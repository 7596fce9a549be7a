"""The path of a value in a token's claims: the name of a claim, and of members of objects inside it.

In the configuration a string is a path of names with dots between: `realm_access.roles`. A string with a slash or a
colon is one name, as namespaced claims have (`https://example.com/roles`). Other names with dots are written as a list:
`["kubernetes.io", "namespace"]`. So the configuration decides what a path means, and never the token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from gateway.authentication import names, token_errors

_DEEPEST: Final = 8
_LONGEST: Final = 256
ABSENT: Final = object()
"""The result of `at` where there is no value."""


def _path(value: Any) -> tuple[str, ...]:
    parts = _parted(value) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not 1 <= len(parts) <= _DEEPEST:
        raise ValueError(f"must be a claim's name, a path with dots, or a list of 1 to {_DEEPEST} names")
    if not all(names.is_visible(part, _LONGEST) for part in parts):
        raise ValueError(f"must be names of claims, each {names.visible_rule(_LONGEST)}")
    return tuple(parts)


def _parted(text: str) -> list[str]:
    return [text] if "/" in text or ":" in text else text.split(".")


ClaimPath = Annotated[tuple[str, ...], BeforeValidator(_path)]


def at(claims: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value at `path`, or ABSENT. Raises Unauthenticated where a value on the way is not an object."""
    found: Any = claims
    for depth, name in enumerate(path):
        if not isinstance(found, Mapping):
            raise token_errors.claim(shown(path[:depth]), "an object")
        if name not in found:
            return ABSENT
        found = found[name]
    return found


def shown(path: Sequence[str]) -> str:
    """The path as the configuration writes it."""
    text = ".".join(path)
    return text if tuple(_parted(text)) == tuple(path) else json.dumps(list(path), ensure_ascii=False)
