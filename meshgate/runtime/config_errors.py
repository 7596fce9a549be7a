"""What is wrong with a configuration, in words: one line a problem, with its key and what would be right there.

pydantic says what it checked ("Input should be greater than or equal to 1"), in its own terms and a rule at a time. The
reader wants to know what to write, so a line here is made from the declaration of the field: its type and its range.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from meshgate.numerals import written

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEYED: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*: ")
_LISTED: Final = 24
"""An unknown key is answered with the known ones where they are no more than this."""


class _Place(NamedTuple):
    """A place in a configuration: its type, and what bounds its values."""

    kind: Any
    bounds: tuple[Any, ...] = ()


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Lines for what `error` found wrong in a configuration of the kind `model`: `section.key: what is wrong`."""
    return [_line(found, model) for found in error.errors(include_input=False, include_url=False)]


def dotted(parts: Iterable[str]) -> str:
    """The key of a place as TOML writes it: `limits.tenants.acme`, with quotes around what is no bare key."""
    return ".".join(part if _BARE.fullmatch(part) else _quoted(part) for part in parts)


def _quoted(part: str) -> str:
    return (
        '"'
        + "".join(each if each.isprintable() and each not in '"\\' else f"\\u{ord(each):04x}" for each in part)
        + '"'
    )


def _line(found: ErrorDetails, model: type[BaseModel]) -> str:
    kind, loc = found["type"], found["loc"]
    parts, place = _walk(model, loc[:-1] if kind in ("extra_forbidden", "missing") else loc)
    if kind == "extra_forbidden":
        return f"{dotted([*parts, str(loc[-1])])}: {_unknown(str(loc[-1]), place, model)}"
    if kind == "missing":
        return _missing(parts, str(loc[-1]), place)
    if kind == "value_error":
        return _joined(dotted(parts), str(found["ctx"]["error"]))
    if kind.startswith("union_tag"):
        return f"{dotted([*parts, 'kind'])}: must be {_tags(place)}"
    return _joined(dotted(parts), f"must be {_expected(place)}")


def _joined(key: str, text: str) -> str:
    """`text` may begin with a key below `key`, as checks of whole sections write it."""
    if not key:
        return text if _KEYED.match(text) else f"file: {text}"
    return f"{key}.{text}" if _KEYED.match(text) else f"{key}: {text}"


def _missing(parts: Sequence[str], name: str, place: _Place) -> str:
    field = next((kind.model_fields[name] for kind in _models(place) if name in kind.model_fields), None)
    wanted = f": it must be {_expected(_of(field))}" if field is not None else ""
    return f"{dotted([*parts, name])}: is missing{wanted}"


def _unknown(name: str, place: _Place, root: type[BaseModel]) -> str:
    known = [each for kind in _models(place) for each in kind.model_fields]
    if close := get_close_matches(name, known, n=1, cutoff=0.7):
        return f"unknown key; did you mean {close[0]}?"
    if elsewhere := sorted(set(_sections(root, name))):
        return (
            f"unknown key here; there is one in [{elsewhere[0]}]"
            if elsewhere[0]
            else "unknown key here; it belongs to the top of the file"
        )
    return f"unknown key; known: {', '.join(known)}" if 0 < len(known) <= _LISTED else "unknown key"


def _sections(model: type[BaseModel], name: str, at: tuple[str, ...] = ()) -> Iterator[str]:
    """The sections in which there is a key `name`."""
    if name in model.model_fields:
        yield dotted(at)
    for section, field in model.model_fields.items():
        for kind in _models(_of(field)):
            yield from _sections(kind, name, (*at, section))


def _walk(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], _Place]:
    """The parts of the key at `loc`, and what is declared there. Which of several types was tried is no part of it."""
    parts: list[str] = []
    place = _Place(model)
    for part in loc:
        below = _below(place, part)
        if below is None:
            place = _Place(_tagged(place, str(part)) or place.kind, place.bounds)
            continue
        place = below
        if part != "[key]":
            parts.append(str(part))
    return parts, place


def _below(place: _Place, part: int | str) -> _Place | None:
    """What is declared for `part` of a section, a table or a list; None where `part` is none of it."""
    for kind in _kinds(place.kind):
        origin, arguments = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if part in kind.model_fields:
                return _of(kind.model_fields[str(part)])
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            return _annotated(arguments[0] if part == "[key]" else arguments[1])
        elif isinstance(part, int) and isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
            return _annotated(arguments[0])
    return None


def _of(field: FieldInfo) -> _Place:
    place = _annotated(field.annotation)
    return _Place(place.kind, (*place.bounds, *field.metadata))


def _annotated(kind: Any) -> _Place:
    if get_origin(kind) is not Annotated:
        return _Place(kind)
    inner, *extra = get_args(kind)
    return _Place(
        inner, tuple(each for one in extra for each in (one.metadata if isinstance(one, FieldInfo) else [one]))
    )


def _kinds(kind: Any) -> list[Any]:
    """The types of a union, each alone; None is what is left out, and nobody writes it."""
    if get_origin(kind) in (Union, types.UnionType):
        return [one for each in get_args(kind) if each is not types.NoneType for one in _kinds(_annotated(each).kind)]
    return [kind]


def _models(place: _Place) -> list[type[BaseModel]]:
    """The sections that a place may be, itself or in a list or a table."""
    found = []
    for kind in _kinds(place.kind):
        inner = [one for each in get_args(kind) for one in _kinds(_annotated(each).kind)]
        found += [one for one in (kind, *inner) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found


def _tagged(place: _Place, tag: str) -> Any:
    """The section of a union whose `kind` is `tag`."""
    return next((each for each in _models(place) if tag in get_args(_kind_of(each))), None)


def _tags(place: _Place) -> str:
    return _one_of([tag for each in _models(place) for tag in get_args(_kind_of(each))])


def _kind_of(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return field.annotation if field is not None else None


def _expected(place: _Place) -> str:
    """What a value must be, for the end of a sentence: `a whole number from 1 to 64`."""
    kinds = _kinds(place.kind)
    return " or ".join(dict.fromkeys(_expected_of(kind, place.bounds) for kind in kinds))


def _expected_of(kind: Any, bounds: Sequence[Any]) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return _one_of(get_args(kind))
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


def _one_of(values: Sequence[Any]) -> str:
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


_SINGULAR: Final = {"entries": "entry", "values": "value", "characters": "character"}
