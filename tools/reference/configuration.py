"""The reference of every configuration key, made from the models that read it: a page for each process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config import GatewayConfig
from meshgate.runtime.config.schema import KeyPath, expected, kinds_of, place_of, sections_of, tag_of
from services.classification.config import ClassificationConfig
from services.embedding.config import EmbeddingConfig
from services.generation.config import GenerationConfig
from tools.reference import docstrings
from tools.reference.markdown import Pages, anchored, page, prose, table

KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "gateway": GatewayConfig,
    "generation": GenerationConfig,
    "embedding": EmbeddingConfig,
    "classification": ClassificationConfig,
}
_HEAD: Final = """\
Each process reads one TOML file, `--config FILE`; deploy/config/ has a working one for each. In any string
`${MESHGATE_HOME}` stands for the state directory and `${NAME}` for an environment variable, which must be set.

An unknown key, a value out of range or an unusable file stops the start. For each, the process logs one line with the
file, the key and the correct range. A name in angle brackets, such as `<tenant>`, is yours to choose. A section in
double brackets may be repeated."""
_SINGULAR: Final = {"scopes": "scope", "peers": "pattern"}


def pages() -> Pages:
    """The page that leads to the others, and one page for each process."""
    made = {_file(name): _process(name, model) for name, model in KINDS.items()}
    listed = table(["process", "example"], ([f"[{name}]({_file(name)})", _example(name)] for name in KINDS))
    return {"configuration.md": page("Configuration", _HEAD, listed), **made}


def _file(name: str) -> str:
    return f"configuration-{name}.md"


def _example(name: str) -> str:
    return f"[deploy/config/{name}.toml](../../deploy/config/{name}.toml)"


def _process(name: str, model: type[BaseModel]) -> str:
    rules = "[Configuration](configuration.md) has the rules."
    head = f"Every key of this process. {_example(name)} is a working file. {rules}"
    return page(f"Configuration: {name}", head, *sections(model, ""))


def sections(model: type[BaseModel], at: str, title: str = "") -> Iterator[str]:
    """A section with a table of its keys, then the sections in it."""
    told = _documented(model)
    keys = {name: field for name, field in model.model_fields.items() if not _inner(place_of(field))}
    if keys:
        yield f"## {title or 'Top of the file'}"
        yield prose(model.__doc__) if at else ""
        rows = (_row(at, name, field, told.get(name, "")) for name, field in keys.items())
        yield table(["key", "value", "default", "meaning"], rows)
    for name, field in model.model_fields.items():
        for inner in _inner(place_of(field)):
            place, brackets = _named(at, name, place_of(field), inner)
            yield from sections(inner, place, f"`{brackets[0]}{place}{brackets[1]}`{_tag(inner, field)}")


def _inner(place: KeyPath) -> list[type[BaseModel]]:
    return list(dict.fromkeys(sections_of(place)))


def _named(at: str, name: str, place: KeyPath, inner: type[BaseModel]) -> tuple[str, tuple[str, str]]:
    """The heading of a section in a file, and its brackets."""
    whole = f"{at}.{name}" if at else name
    if inner in kinds_of(place.kind):
        return whole, ("[", "]")
    if "Mapping" in str(place.kind) or "dict" in str(place.kind):
        return f"{whole}.<{_SINGULAR.get(name, name.removesuffix('s'))}>", ("[", "]")
    return whole, ("[[", "]]")


def _tag(inner: type[BaseModel], field: FieldInfo) -> str:
    kinds = get_args(tag_of(inner))
    return f' with `kind = "{kinds[0]}"`' if len(kinds) == 1 and len(_inner(place_of(field))) > 1 else ""


def _row(at: str, name: str, field: FieldInfo, told: str) -> list[str]:
    whole = f"{at}.{name}" if at else name
    return [anchored(_anchor(whole), name), prose(expected(place_of(field))), _default(field), prose(told)]


def _anchor(key: str) -> str:
    return key.replace("<", "").replace(">", "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path):
        return "`${MESHGATE_HOME}/" + value.name + "`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, int | float):
        return f"`{value:_}`" if isinstance(value, int) else f"`{value:g}`"
    return _collected(value)


def _collected(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"`{name}`" for name in value)
    return ", ".join(f'`"{each}"`' for each in value if isinstance(each, str))


def _documented(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields, those of parents included."""
    told: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if not issubclass(parent, BaseModel) or parent is BaseModel:
            continue
        told.update(docstrings.of_fields(parent))
    return told
