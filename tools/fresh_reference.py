"""The reference of every configuration key, made from the models that read it: docs/configuration.md.

`python -m tools.fresh_reference` proves the committed page fresh; with `--write` it writes the page.
"""

from __future__ import annotations

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config import GatewayConfig
from meshgate.runtime.config.schema import KeyPath, expected, kinds_of, place_of, sections_of, tag_of
from services.classification.config import ClassificationConfig
from services.embedding.config import EmbeddingConfig
from services.generation.config import GenerationConfig

PAGE: Final = Path(__file__).parent.parent / "docs" / "configuration.md"
KINDS: Final[Mapping[str, type[BaseModel]]] = {
    "Gateway": GatewayConfig,
    "Generation": GenerationConfig,
    "Embedding": EmbeddingConfig,
    "Classification": ClassificationConfig,
}
_HEAD: Final = """\
# Configuration reference

This page is generated from the code that reads the files (`make reference`), and `make check` proves it fresh.

Each process reads one TOML file, `--config FILE`; deploy/config/ has a working one for each. In any string
`${MESHGATE_HOME}` stands for the state directory and `${NAME}` for an environment variable, which must be set.

An unknown key, a value out of range and a file that can't be used stop the start: each is one line with the file, the
key and what would be right. A name in angle brackets, such as `<tenant>`, is yours to choose. A section in double
brackets may be repeated.
"""


def main() -> int:
    """0 when the page is fresh, or was written."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE.name}: not what the code says; run `make reference`", file=sys.stderr)
        return 1
    return 0


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, model in KINDS.items():
        parts.append(f"\n## {name}\n")
        parts.extend(sections(model, ""))
    return "".join(parts)


def sections(model: type[BaseModel], at: str, title: str = "") -> Iterator[str]:
    """A section with a table of its keys, then the sections in it."""
    told = _documented(model)
    keys = {name: field for name, field in model.model_fields.items() if not _inner(place_of(field))}
    if keys:
        yield f"\n### {title or '(top of the file)'}\n\n"
        yield f"{_text(model.__doc__)}\n\n" if at and model.__doc__ else ""
        yield "| key | value | default | |\n| --- | --- | --- | --- |\n"
        yield from (_row(name, field, told.get(name, "")) for name, field in keys.items())
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


_SINGULAR: Final = {"scopes": "scope", "peers": "pattern"}


def _tag(inner: type[BaseModel], field: FieldInfo) -> str:
    kinds = get_args(tag_of(inner))
    return f' with `kind = "{kinds[0]}"`' if len(kinds) == 1 and len(_inner(place_of(field))) > 1 else ""


def _row(name: str, field: FieldInfo, told: str) -> str:
    return f"| `{name}` | {expected(place_of(field))} | {_default(field)} | {_text(told)} |\n"


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
    """What the docstrings below the fields say, those of parents included."""
    told: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if not issubclass(parent, BaseModel) or parent is BaseModel:
            continue
        [body] = ast.parse(dedent(inspect.getsource(parent))).body
        assert isinstance(body, ast.ClassDef)
        for field, said in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                told[field.target.id] = str(said.value.value)
    return told


def _text(said: str | None) -> str:
    return " ".join((said or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
