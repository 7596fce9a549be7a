"""The reference of the Python SDK, made from the public names of its modules."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from typing import Any, Final

from meshgate import client, errors
from meshgate.client import aio
from tools.reference.markdown import Pages, page

_MODULES: Final = (client, aio, errors)


def pages() -> Pages:
    """One page, a section for each module."""
    return {"sdk.md": page("Python SDK", *(part for module in _MODULES for part in _module(module)))}


def public(module: Any) -> dict[str, Any]:
    """The names that a module offers, and what they are."""
    listed = getattr(module, "__all__", None)
    found = {name: each for name, each in vars(module).items() if inspect.isclass(each) or inspect.isfunction(each)}
    if listed is not None:
        return {name: found[name] for name in listed if name in found}
    return {name: each for name, each in found.items() if each.__module__ == module.__name__ and name[0] != "_"}


def _module(module: Any) -> Iterator[str]:
    yield f"## {module.__name__}"
    yield _docstring(module)
    for name, found in public(module).items():
        yield from _object(module.__name__, name, found)


def _object(module: str, name: str, found: Any) -> Iterator[str]:
    yield f"### {module}.{name}"
    yield f"```python\n{_declared(name, found)}\n```"
    yield _docstring(found)
    if inspect.isclass(found):
        for method, function in _methods(found):
            yield f"#### {name}.{method}"
            yield f"```python\n{_declared(method, function)}\n```"
            yield _docstring(function)


def _methods(found: type) -> Iterator[tuple[str, Any]]:
    for name, each in vars(found).items():
        function = each.__func__ if isinstance(each, classmethod | staticmethod) else each
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def _declared(name: str, found: Any) -> str:
    """The declaration, a parameter a line where it has more than two."""
    if inspect.isclass(found):
        bases = ", ".join(base.__name__ for base in found.__bases__ if base is not object)
        return _call(f"class {name}", _init(found), "") + (f"  # {bases}" if bases else "")
    word = "async def" if inspect.iscoroutinefunction(found) else "def"
    signature = inspect.signature(found)
    return _call(f"{word} {name}", list(signature.parameters.values()), _annotation(signature.return_annotation))


def _init(found: type) -> list[inspect.Parameter]:
    if found.__init__ in (object.__init__, Exception.__init__):  # type: ignore[misc]
        return []
    return list(inspect.signature(found.__init__).parameters.values())  # type: ignore[misc]


def _call(head: str, parameters: list[inspect.Parameter], returned: str) -> str:
    shown = _parameters([each for each in parameters if each.name not in ("self", "cls")])
    end = f" -> {returned}" if returned else ""
    if len(shown) < 3:
        return f"{head}({', '.join(shown)}){end}"
    lines = "".join(f"    {each},\n" for each in shown)
    return f"{head}(\n{lines}){end}"


def _parameters(parameters: list[inspect.Parameter]) -> list[str]:
    shown, bare = [], False
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and not bare:
            bare = True
            shown.append("*")
        shown.append(_parameter(each))
        bare = bare or each.kind is each.VAR_POSITIONAL
    return shown


def _parameter(found: inspect.Parameter) -> str:
    stars = "*" if found.kind is found.VAR_POSITIONAL else "**" if found.kind is found.VAR_KEYWORD else ""
    kind = _annotation(found.annotation)
    typed = f"{stars}{found.name}: {kind}" if kind else f"{stars}{found.name}"
    return typed if found.default is found.empty else f"{typed} = {_value(found.default)}"


def _value(default: Any) -> str:
    """A default as source has it; an object that has no literal is named by its class."""
    if default is os.environ:
        return "os.environ"
    literal = isinstance(default, str | int | float | bool | tuple | None)
    return repr(default) if literal else f"{type(default).__name__}()"


def _annotation(found: Any) -> str:
    if found is inspect.Signature.empty:
        return ""
    return found if isinstance(found, str) else getattr(found, "__name__", str(found))


def _docstring(found: Any) -> str:
    return inspect.cleandoc(found.__doc__ or "")
