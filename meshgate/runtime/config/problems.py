"""The problems of a configuration, one line each, with the key and an allowed value.

pydantic says what it checked ("Input should be greater than or equal to 1"), in its own terms and a rule at a time. The
reader wants to know what to write, so a line here is made from the declaration of the field: its type and its range.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meshgate.runtime.config.schema import (
    KeyPath,
    dotted,
    expected,
    kinds_of,
    one_of,
    place_of,
    place_of_type,
    sections_of,
    tag_of,
)

_KEYED: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*: ")
_ALIKE: Final = 0.7
"""How like a known key an unknown one must be to be held for it."""
_LISTED: Final = 24
"""An unknown key is answered with the known ones where they are no more than this."""


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Lines for what `error` found wrong in a configuration of the kind `model`: `section.key: what is wrong`."""
    every = error.errors(include_input=False, include_url=False)
    return [_line(found, model) for found in every if not _follows(found, every)]


def _follows(found: ErrorDetails, every: Sequence[ErrorDetails]) -> bool:
    """Whether a problem only follows from another: a list is too short because its items cannot be used, or a key is
    missing because it is misspelt or misplaced.
    """
    kind, loc = found["type"], found["loc"]
    if kind == "too_short":
        return any(len(each["loc"]) > len(loc) and each["loc"][: len(loc)] == loc for each in every)
    if kind != "missing":
        return False
    if any(each["type"] == "extra_forbidden" and each["loc"][-1] == loc[-1] for each in every):
        return True  # it stands in another section
    beside = [each["loc"] for each in every if each["type"] == "extra_forbidden" and each["loc"][:-1] == loc[:-1]]
    return bool(get_close_matches(str(loc[-1]), [str(each[-1]) for each in beside], n=1, cutoff=_ALIKE))


def switches(document: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """Lines for each true or false where a number belongs, which pydantic takes for 1 or 0."""
    found = [_walk(model, at) for at in _bools(document)]
    return [f"{dotted(parts)}: must be {expected(place)}" for parts, place in found if _is_number(place)]


def _bools(value: Any, at: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    if isinstance(value, bool):
        yield at
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for part, each in inner:
        yield from _bools(each, (*at, part))


def _is_number(place: KeyPath) -> bool:
    kinds = kinds_of(place.kind)
    return bool not in kinds and (int in kinds or float in kinds)


def meant(name: str, known: Iterable[str]) -> str:
    """A question about what is like `name` among the known ones, or nothing."""
    by_letters = {each.lower(): each for each in sorted(known)}
    close = get_close_matches(name.lower(), by_letters, n=1, cutoff=0.6)
    return f"; did you mean {by_letters[close[0]]!r}?" if close else ""


def _line(found: ErrorDetails, model: type[BaseModel]) -> str:
    kind, loc = found["type"], found["loc"]
    if loc[-1:] == ("[key]",) and kind != "value_error":
        return _misnamed(loc, model)
    parts, place = _walk(model, loc[:-1] if kind in ("extra_forbidden", "missing") else loc)
    if kind == "extra_forbidden":
        return f"{dotted([*parts, str(loc[-1])])}: {_unknown(str(loc[-1]), place, (model, parts))}"
    if kind == "missing":
        return _missing(parts, str(loc[-1]), place)
    if kind == "value_error":
        return _joined(dotted(parts), str(found["ctx"]["error"]))
    if kind.startswith("json_"):
        return "file: not valid JSON"
    if kind.startswith("union_tag"):
        return f"{dotted([*parts, 'kind'])}: must be {_tags(place)}"
    return _joined(dotted(parts), f"must be {expected(place)}")


def _misnamed(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """Of a name in a table that can't be one."""
    parts, table = _walk(model, loc[:-2])
    name = str(loc[-2])
    wanted = _below(table, "[key]") or KeyPath(str)
    return (
        f"{dotted([*parts, name])}: the name must be {expected(wanted)}{meant(name, map(str, get_args(wanted.kind)))}"
    )


def _joined(key: str, text: str) -> str:
    """`text` may begin with a key below `key`, as checks of whole sections write it."""
    if not key:
        return text if _KEYED.match(text) else f"file: {text}"
    return f"{key}.{text}" if _KEYED.match(text) else f"{key}: {text}"


def _missing(parts: Sequence[str], name: str, place: KeyPath) -> str:
    field = next((kind.model_fields[name] for kind in sections_of(place) if name in kind.model_fields), None)
    wanted = f": it must be {expected(place_of(field))}" if field is not None else ""
    return f"{dotted([*parts, name])}: is missing{wanted}"


def _unknown(name: str, place: KeyPath, there: tuple[type[BaseModel], Sequence[str]]) -> str:
    """`there` is the whole configuration and the key of the section in it."""
    root, parts = there
    known = [each for kind in sections_of(place) for each in kind.model_fields]
    if close := get_close_matches(name, known, n=1, cutoff=_ALIKE):
        return f"unknown key; did you mean {close[0]}?"
    below = [at for kind in sections_of(place) for at in _sections(kind, name, tuple(parts)) if at != tuple(parts)]
    if elsewhere := sorted(map(dotted, below or _sections(root, name))):
        return (
            f"unknown key here; there is one in [{elsewhere[0]}]"
            if elsewhere[0]
            else "unknown key here; it belongs to the top of the file"
        )
    return f"unknown key; known: {', '.join(known)}" if 0 < len(known) <= _LISTED else "unknown key"


def _sections(model: type[BaseModel], name: str, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The sections in which there is a key `name`; in a table NAME stands for a name."""
    if name in model.model_fields:
        yield at
    for section, field in model.model_fields.items():
        for kind in sections_of(place_of(field)):
            yield from _sections(kind, name, (*at, section, *_named(place_of(field), kind)))


def _named(place: KeyPath, section: type[BaseModel]) -> tuple[str, ...]:
    """The part between a key and the section in it."""
    table = section not in kinds_of(place.kind) and any(_is_table(kind) for kind in kinds_of(place.kind))
    return ("NAME",) if table else ()


def _is_table(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _walk(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], KeyPath]:
    """The parts of the key at `loc`, and what is declared there. Which of several types was tried is no part of it."""
    parts: list[str] = []
    place = KeyPath(model)
    for part in loc:
        below = _below(place, part)
        if below is None:
            place = KeyPath(_tagged(place, str(part)) or place.kind, place.bounds)
            continue
        place = below
        if part != "[key]":
            parts.append(str(part))
    return parts, place


def _below(place: KeyPath, part: int | str) -> KeyPath | None:
    """The declaration of `part` of a section, a table or a list; None where `part` is none of it."""
    for kind in kinds_of(place.kind):
        origin, arguments = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if part in kind.model_fields:
                return place_of(kind.model_fields[str(part)])
        elif _is_table(kind):
            return place_of_type(arguments[0] if part == "[key]" else arguments[1])
        elif isinstance(part, int) and isinstance(origin, type) and issubclass(origin, Sequence | AbstractSet):
            return place_of_type(arguments[0])
    return None


def _tagged(place: KeyPath, tag: str) -> Any:
    """The section of a union whose `kind` is `tag`."""
    return next((each for each in sections_of(place) if tag in get_args(tag_of(each))), None)


def _tags(place: KeyPath) -> str:
    return one_of([tag for each in sections_of(place) for tag in get_args(tag_of(each))])
