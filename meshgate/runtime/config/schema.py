"""The shape of a configuration: the declarations of its models, and their wording for the operator."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from meshgate.numerals import written

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SINGULAR: Final = {"entries": "entry", "values": "value", "characters": "character"}


class KeyPath(NamedTuple):
    """A place in a configuration: its type, and what bounds its values."""

    kind: Any
    bounds: tuple[Any, ...] = ()


def dotted(parts: Iterable[str]) -> str:
    """The dotted key as TOML writes it: `limits.tenants.acme`, with quotes around a part that is not a bare key."""
    return ".".join(part if _BARE.fullmatch(part) else _quoted(part) for part in parts)


def _quoted(part: str) -> str:
    return (
        '"'
        + "".join(each if each.isprintable() and each not in '"\\' else f"\\u{ord(each):04x}" for each in part)
        + '"'
    )


def place_of(field: FieldInfo) -> KeyPath:
    """The type of a field, with the bounds of the type and of the field itself."""
    place = place_of_type(field.annotation)
    return KeyPath(place.kind, (*place.bounds, *field.metadata))


def place_of_type(kind: Any) -> KeyPath:
    """A type, with the bounds that `Annotated` gives it."""
    if get_origin(kind) is not Annotated:
        return KeyPath(kind)
    inner, *extra = get_args(kind)
    return KeyPath(
        inner, tuple(each for one in extra for each in (one.metadata if isinstance(one, FieldInfo) else [one]))
    )


def kinds_of(kind: Any) -> list[Any]:
    """The types of a union, each alone, without None, which stands for a missing key."""
    if get_origin(kind) in (Union, types.UnionType):
        return [
            one for each in get_args(kind) if each is not types.NoneType for one in kinds_of(place_of_type(each).kind)
        ]
    return [kind]


def sections_of(place: KeyPath) -> list[type[BaseModel]]:
    """The sections that a position may hold, directly or in a list or a table."""
    found = []
    for kind in kinds_of(place.kind):
        inner = [one for each in get_args(kind) for one in kinds_of(place_of_type(each).kind)]
        found += [one for one in (kind, *inner) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found


def tag_of(model: type[BaseModel]) -> Any:
    """The type of the field `kind`, by which one of several models is chosen; None where there is none."""
    field = model.model_fields.get("kind")
    return field.annotation if field is not None else None


def expected(place: KeyPath) -> str:
    """The requirement on a value, for the end of a sentence: `a whole number from 1 to 64`."""
    kinds = kinds_of(place.kind)
    return " or ".join(dict.fromkeys(_expected_of(kind, place.bounds) for kind in kinds))


def _expected_of(kind: Any, bounds: Sequence[Any]) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return one_of(get_args(kind))
    if isinstance(origin, type):
        if issubclass(origin, Mapping):
            return f"a table{_lengths(bounds, 'entries')}"
        return f"a list{_lengths(bounds, 'values')}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "a section"
    named = {bool: "true or false", Path: "a path, in quotes", int: "a whole number", float: "a number"}
    if kind in named:
        return named[kind] + _range(bounds)
    return _text(bounds) if kind in (str, SecretStr) else "a value of another kind"


def _text(bounds: Sequence[Any]) -> str:
    pattern = next((each.pattern for each in bounds if getattr(each, "pattern", None)), None)
    return f"text in quotes{_lengths(bounds, 'characters')}{f' that matches {pattern}' if pattern else ''}"


def one_of(values: Sequence[Any]) -> str:
    """The values as the end of a sentence: `one of a, b`, or the only one."""
    return f"one of {', '.join(map(str, values))}" if len(values) > 1 else str(*values)


def _bound(bounds: Sequence[Any], name: str) -> Any:
    return next((value for each in bounds if (value := getattr(each, name, None)) is not None), None)


def _range(bounds: Sequence[Any]) -> str:
    least, most = _bound(bounds, "ge"), _bound(bounds, "le")
    above, below = _bound(bounds, "gt"), _bound(bounds, "lt")
    if least is not None and most is not None:
        return f" from {written(least)} to {written(most)}"
    told = (
        (" of at least {}", least),
        (" greater than {}", above),
        (" of at most {}", most),
        (" less than {}", below),
    )
    return " and".join(text.format(written(bound)) for text, bound in told if bound is not None)


def _lengths(bounds: Sequence[Any], what: str) -> str:
    least, most = _bound(bounds, "min_length"), _bound(bounds, "max_length")
    if least and most:
        return f" of {written(least)} to {written(most)} {what}"
    if least:
        return f" of at least {written(least)} {what if least > 1 else _SINGULAR[what]}"
    return f" of at most {written(most)} {what}" if most is not None else ""
