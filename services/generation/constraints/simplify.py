"""Rewrites a JSON schema into one that means the same and that llguidance can follow.

The library refuses every keyword that it does not implement, also where the keyword demands nothing
(`uniqueItems: false`) or can be said with others (`contains: true` is `minItems: 1`). Those are taken out here. What is
left and can't be followed exactly is refused, by the library or here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from services.generation.constraints import plain

FORMATS: Final = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
)
"""The formats that llguidance enforces. JSON Schema says that others are ignored."""
_ONE: Final = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not"),
    *("propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
"""Keywords whose value is a schema."""
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS: Final = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties", "dependencies")
_APPLICATORS: Final = (
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
"""Keywords whose subschemas look at the same value, and so count for `unevaluated...`."""
_KINDS: Final = {
    "array": ("contains", "maxContains", "maxItems", "minContains", "minItems", "unevaluatedItems", "uniqueItems"),
    "object": (
        *("dependencies", "dependentRequired", "dependentSchemas", "maxProperties", "minProperties", "propertyNames"),
        "unevaluatedProperties",
    ),
    "string": ("format",),
}
"""Keywords that say nothing of values of another type."""

_COUNTS: Final = (
    *("maxContains", "maxItems", "maxLength", "maxProperties"),
    *("minContains", "minItems", "minLength", "minProperties"),
)
"""Keywords whose value is a count."""
_EVERY: Final = ("array", "boolean", "null", "number", "object", "string")
_BRANCHES: Final = 64
"""Branches of a `oneOf` of which each is compared with each."""
_NUMBERS: Final = ("const", "enum", "exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf")
"""Keywords whose numbers stand for themselves."""

PATTERNS: Final = 8
"""Patterns and formats that may hold for one string together. The library's time and memory double with each."""

Schema = dict[str, Any]


class UnsupportedSchema(ValueError):
    """A schema that would be followed only in part. Its text is for the caller."""


def simplified(schema: Schema) -> Schema:
    """The same schema without what demands nothing. Raises NotFollowed."""
    made = _walk(schema)
    if made is False:
        raise UnsupportedSchema("nothing can match it")
    return {} if made is True else dict(made)


def check_patterns(schema: Schema) -> None:
    """Raises NotFollowed where too many patterns may hold for one string, anywhere in a schema."""
    if max(_Patterns(schema).most(schema)) > PATTERNS:
        raise UnsupportedSchema(f"at most {PATTERNS} patterns and formats can hold for one string")


class _Most(NamedTuple):
    """Patterns and formats that may hold for one string together."""

    here: int = 0
    """For the value itself."""
    inside: int = 0
    """For any one value in it."""

    def __add__(self, other: _Most) -> _Most:  # type: ignore[override]  # of two schemas that hold for one value
        return _Most(min(self.here + other.here, _ENDLESS), min(self.inside + other.inside, _ENDLESS))


_ENDLESS: Final = 1000
_NONE: Final = _Most()


class _Patterns:
    """Counts the patterns and formats that may hold for one string."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._known: dict[str, _Most] = {}
        """Of what references lead to. One that leads to itself is not followed again, by the library neither."""

    def most(self, schema: Any) -> _Most:
        """For a schema, with all that is in it."""
        if not isinstance(schema, dict):
            return _NONE
        parts = [max(self.most(child)) for child in _children(schema)]
        own = _Most(sum(key in schema for key in ("pattern", "format")), max(parts, default=0))
        own += self._referred(schema.get("$ref"))
        for each in _list(schema.get("allOf")):
            own += self.most(each)
        for key in ("anyOf", "oneOf"):
            found = [self.most(each) for each in _list(schema.get(key))]
            own += _Most(*(max(column) for column in zip(*found, strict=True))) if found else _NONE
        return own

    def _referred(self, place: Any) -> _Most:
        if not isinstance(place, str):
            return _NONE
        if place not in self._known:
            self._known[place] = _NONE
            self._known[place] = self.most(_found(self._root, place))
        return self._known[place]


def _children(schema: Schema) -> Iterator[Any]:
    """The schemas of what is in a value."""
    for key in ("properties", "patternProperties"):
        found = schema.get(key)
        yield from found.values() if isinstance(found, dict) else ()
    yield from _list(schema.get("prefixItems"))
    yield from _list(schema.get("items"))
    yield from (schema.get(key) for key in ("additionalProperties", "additionalItems", "items"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _found(root: Schema, place: str) -> Any:
    """What a reference leads to; nothing where it leads nowhere, which the library says."""
    found: Any = root
    for step in place.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def controls(value: Any) -> bool:
    """Whether a string in it has a character that JSON writes as a number alone (U+0001, U+007F)."""
    if isinstance(value, str):
        return any((letter < " " and letter not in "\b\f\n\r\t") or letter == "\x7f" for letter in value)
    if isinstance(value, dict):
        return any(controls(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(map(controls, value))


def open_beside_names(schema: Any) -> bool:
    """Whether an object in it has named properties, and may have others whose names nobody knows."""
    if isinstance(schema, dict):
        named = any(key in schema for key in ("properties", "patternProperties", "required"))
        if named and schema.get("additionalProperties") is not False:
            return True
        return any(map(open_beside_names, schema.values()))
    return isinstance(schema, list) and any(map(open_beside_names, schema))


def _walk(schema: Any) -> Any:
    """A schema with its own schemas simplified, then itself."""
    if not isinstance(schema, dict):
        return schema
    made = {**schema, **dict(_inner(schema))}
    for rule in _RULES:
        if rule(made) is False:
            return False
    return made


def _inner(schema: Schema) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            yield key, {name: _walk(each) for name, each in value.items()}
        elif key in _LISTS and isinstance(value, list):
            yield key, [_walk(each) for each in value]
        elif key in _ONE:
            yield key, _walk(value)


# Rules. Each changes a schema in place; False says that nothing can match it.


def _counts(schema: Schema) -> None:
    """`1.0` is the integer 1."""
    for key in _COUNTS:
        said = schema.get(key)
        if isinstance(said, float) and said.is_integer():
            schema[key] = int(said)


def _numbers(schema: Schema) -> None:
    """The library writes others than these for large ones, and ends the process for the least."""
    if not all(plain.exact(schema[key]) for key in _NUMBERS if key in schema):
        raise UnsupportedSchema("numbers can have 15 digits and be at most 9007199254740992")


def _of_other_types(schema: Schema) -> None:
    kinds = schema.get("type")
    if kinds is None:
        return
    for kind, keywords in _KINDS.items():
        if kind != kinds and not (isinstance(kinds, list) and kind in kinds):
            for keyword in keywords:
                schema.pop(keyword, None)


def _references(schema: Schema) -> None:
    """What is no schema's place was not simplified."""
    said = schema.get("$ref")
    place = said.partition("#")[2] if isinstance(said, str) else ""
    if not place.startswith("/"):
        return
    inside = ""
    for step in place[1:].split("/"):
        if inside in _MAPS or (inside in _LISTS and step.isdigit()):
            inside = ""
        elif step in _MAPS or step in _LISTS or step in _ONE:
            inside = step
        else:
            raise UnsupportedSchema("$ref can lead to schemas alone: those of $defs, properties, items and the like")


def _formats(schema: Schema) -> None:
    said = schema.get("format")
    if isinstance(said, str) and said not in FORMATS:
        del schema["format"]


def _anchors(schema: Schema) -> None:
    schema.pop("$dynamicAnchor", None)  # a `$dynamicRef` to it is refused
    schema.pop("$vocabulary", None)
    schema.pop("$recursiveAnchor", None)  # likewise
    if "prefixItems" in schema:  # which the library would not look at beside it
        schema.pop("additionalItems", None)


def _unique(schema: Schema) -> None:
    said = schema.get("uniqueItems")
    if said is False or (said is True and _items_at_most(schema) <= 1):
        del schema["uniqueItems"]


def _items_at_most(schema: Schema) -> float:
    most = schema.get("maxItems", float("inf"))
    closed = schema.get("items") is False
    fixed = schema.get("prefixItems", ())
    least: float = min(most if isinstance(most, int | float) else float("inf"), len(fixed) if closed else float("inf"))
    return least


def _contains(schema: Schema) -> None:
    if "contains" not in schema:
        schema.pop("minContains", None)
        schema.pop("maxContains", None)
    elif _all(schema["contains"]):
        _raise(schema, "minItems", schema.pop("minContains", 1))
        if "maxContains" in schema:
            _lower(schema, "maxItems", schema.pop("maxContains"))
        del schema["contains"]
    elif schema.get("minContains") == 0 and "maxContains" not in schema:
        del schema["contains"], schema["minContains"]


def _names(schema: Schema) -> None:
    said = schema.get("propertyNames")
    if said is not None and plain.demands_nothing_of_strings(said):
        del schema["propertyNames"]
    elif said is False or (said is not None and "string" not in plain.kinds(said)):
        del schema["propertyNames"]
        _lower(schema, "maxProperties", 0)


def _most(schema: Schema) -> None:
    """`maxProperties`, which the library knows where all named properties are required."""
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


def _not(schema: Schema) -> bool | None:
    if "not" not in schema:
        return None
    if _all(schema["not"]):
        return False
    if plain.disjoint(schema, schema["not"]):
        del schema["not"]
    elif _only_type(schema["not"]) and plain.kinds(schema) <= plain.kinds(schema["not"]):
        return False
    return None


def _only_type(schema: Any) -> bool:
    return isinstance(schema, dict) and plain.demands_nothing({**schema, "type": list(_EVERY)})


def _one_of(schema: Schema) -> None:
    """`oneOf` is `anyOf` where its branches exclude each other."""
    branches = schema.get("oneOf")
    if not isinstance(branches, list) or "anyOf" in schema or len(branches) > _BRANCHES:
        return
    if plain.exclusive([_narrowed(schema, each) for each in branches]):
        schema["anyOf"] = schema.pop("oneOf")


def _narrowed(schema: Schema, branch: Any) -> Any:
    """A branch with the type that is said beside it."""
    return {"type": schema["type"], **branch} if "type" in schema and isinstance(branch, dict) else branch


def _conditions(schema: Schema) -> None:
    """`if`, which is known where it is a boolean, and means nothing where nothing hangs on it."""
    branches = {name: schema.get(name, True) for name in ("then", "else")}
    if "if" in schema and not _all(schema["if"]) and schema["if"] is not False:
        if not all(map(_all, branches.values())):
            return
    elif "if" in schema:
        chosen = branches["then" if schema["if"] is not False else "else"]
        if not _all(chosen):
            schema["allOf"] = [*schema.get("allOf", ()), chosen]
    for name in ("if", "then", "else"):
        schema.pop(name, None)


def _dependencies(schema: Schema) -> None:
    """`dependencies` is what `dependentRequired` and `dependentSchemas` were before 2019."""
    old = schema.pop("dependencies", None)
    if isinstance(old, dict):
        for name, value in old.items():
            kind = "dependentRequired" if isinstance(value, list) else "dependentSchemas"
            schema[kind] = {**schema.get(kind, {}), name: value}
    elif old is not None:
        schema["dependencies"] = old  # not a schema: for the library to say


def _dependent(schema: Schema) -> None:
    required = schema.get("required", ())
    for kind, follow in (("dependentRequired", _require), ("dependentSchemas", _also)):
        said = schema.get(kind)
        if not isinstance(said, dict):
            continue
        left = {name: value for name, value in said.items() if value not in ([], [name]) and not _all(value)}
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


def _unevaluated(schema: Schema) -> None:
    alone = not any(key in schema for key in _APPLICATORS)
    for name, same in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
        if name not in schema:
            continue
        if _all(schema[name]) or (same in schema and not isinstance(schema[same], list)):
            del schema[name]
        elif alone and same not in schema and "contains" not in schema:
            schema[same] = schema.pop(name)


def _counted(schema: Schema) -> None:
    """`minProperties`, of which a name that comes twice counts once, though it is written twice.

    A required name can't come again, so one name beyond those is always another.
    """
    least, required = schema.get("minProperties"), schema.get("required", [])
    if not isinstance(least, int) or isinstance(least, bool) or not isinstance(required, list):
        return
    names = len({name for name in required if isinstance(name, str)})
    if least <= names:
        del schema["minProperties"]
    elif least > names + 1:
        raise UnsupportedSchema("minProperties can be at most one more than the properties that are required")


def _all(schema: Any) -> bool:
    """Whether everything matches it, as far as that is plain to see."""
    return plain.demands_nothing(schema)


def _raise(schema: Schema, key: str, least: Any) -> None:
    schema[key] = max(schema.get(key, 0), least)


def _lower(schema: Schema, key: str, most: Any) -> None:
    schema[key] = min(schema.get(key, most), most)


_RULES: Final[tuple[Callable[[Schema], bool | None], ...]] = (
    *(_counts, _numbers, _of_other_types, _references, _formats, _anchors, _unique, _contains, _names, _most, _not),
    *(_one_of, _conditions, _dependencies, _dependent, _unevaluated, _counted),
)
