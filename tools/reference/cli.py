"""The reference of every command line, made from the parsers themselves."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin
from unittest.mock import patch

import typer

from certs import __main__ as certs
from gateway import __main__ as gateway
from meshgate.cli.main import app
from meshgate.cli.plugins import Absent
from meshgate.runtime import probe, process
from tools.reference.markdown import Pages, anchored, code, page, prose, table

_HEAD: Final = """\
`meshgate` is the command of callers and operators. Its flags stand before the command's name: `meshgate --target
gw.example:8443 generate "Hello"`. An option may come from an environment variable, and the flag takes precedence. The
exit status is 0, 1 for a failure, 2 for a command line that cannot be used, and 69 for a service that is unavailable.

Each process of the mesh has a command of its own, `python -m ...`, which runs until SIGTERM."""
_SERVICES: Final = ("services.generation", "services.embedding", "services.classification")


class _Found(Exception):
    """Carries a parser out of a `main`."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def pages() -> Pages:
    """One page: the commands of `meshgate`, then the processes."""
    root = typer.main.get_command(app)
    commands = [part for names, command in walk("meshgate", root) for part in _command(names, command)]
    processes = [part for parser in parsers() for part in _parser(parser)]
    return {"cli.md": page("Command line", _HEAD, *commands, *processes)}


def walk(names: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command and those below it, each with its whole name; those of plug-ins are loaded."""
    found = command.present() if isinstance(command, Absent) else command
    if not getattr(found, "hidden", False):
        yield names, found
        context = typer.Context(found, info_name=names)
        for name in found.list_commands(context) if hasattr(found, "list_commands") else ():
            yield from walk(f"{names} {name}", found.get_command(context, name))


def _command(names: str, command: Any) -> Iterator[str]:
    yield f"## {names}"
    yield _help(command.help)
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    yield f"    {' '.join([names, '[OPTIONS]', *(_usage(each) for each in arguments)])}{_rest(command)}"
    rows = [_parameter(names, each) for each in shown]
    yield table(["option", "value", "default", "meaning"], rows) if rows else ""


def _rest(command: Any) -> str:
    return " COMMAND ..." if hasattr(command, "list_commands") else ""


def _help(text: str | None) -> str:
    return "\n\n".join(prose(part) for part in inspect.cleandoc(text or "").split("\n\n"))


def _usage(argument: Any) -> str:
    name = str(argument.name).upper()
    many = argument.nargs == -1
    return f"{name}{'...' if many else ''}" if argument.required else f"[{name}{'...' if many else ''}]"


def _parameter(names: str, found: Any) -> list[str]:
    if found.param_type_name == "argument":
        shown = code(str(found.name).upper())
    else:
        flags = ", ".join([*found.opts, *found.secondary_opts])
        shown = anchored(f"{names.replace(' ', '-')}{found.opts[-1]}", flags)
    meaning = prose(getattr(found, "help", None))
    from_ = f" Environment: {code(str(found.envvar))}." if found.envvar else ""
    return [shown, _value(found), _default(found), f"{meaning}{from_}"]


def _value(found: Any) -> str:
    """The type of a value and its range, or the words that it may be."""
    if getattr(found, "is_flag", False):
        return "flag"
    kind, many = found.type_descriptor.annotation, found.nargs == -1 or getattr(found, "multiple", False)
    inner = get_args(kind)[0] if get_origin(kind) in (list, tuple) else kind
    bounds = (_bound("from", found.min), _bound("to", found.max))
    parts = [_kind(inner), *bounds, "(repeatable)" if many else ""]
    return " ".join(part for part in parts if part)


def _kind(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(code, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(code(each.value) for each in kind)
    return _NAMES[kind]


_NAMES: Final[Mapping[Any, str]] = {str: "text", int: "integer", float: "number", Path: "path", bool: "flag"}


def _bound(word: str, value: Any) -> str:
    return "" if value is None else f"{word} {value:g}"


def _default(found: Any) -> str:
    if found.required:
        return "required"
    default = found.default() if callable(found.default) else found.default
    if not default:
        return ""
    return code("on" if default is True else str(getattr(default, "value", default)))


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parser of each process."""
    yield _caught(gateway.main)
    yield from (process.arguments(name) for name in _SERVICES)
    yield _caught(certs.main)
    yield _caught(probe.main)


def _caught(main: Callable[[], int]) -> argparse.ArgumentParser:
    """The parser that a `main` makes: it runs until it would read the command line."""

    def caught(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> argparse.Namespace:
        raise _Found(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", caught), patch("meshgate.runtime.hardening.harden"):
        try:
            main()
        except _Found as found:
            return found.parser
    raise RuntimeError(f"{main.__module__} reads no command line")


def _parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {parser.prog}"
    yield _help(parser.description)
    yield table(["option", "value", "default", "meaning"], (_action(parser.prog, each) for each in _actions(parser)))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for each in parser._actions:  # noqa: SLF001 - argparse has no public list
        if each.option_strings and each.help != argparse.SUPPRESS and each.dest != "help":
            yield each


def _action(prog: str, action: argparse.Action) -> list[str]:
    name = anchored(f"{prog.replace(' ', '-')}{action.option_strings[-1]}", ", ".join(action.option_strings))
    value = "flag" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    if action.choices and not action.metavar:
        value = ", ".join(code(str(each)) for each in action.choices)
    return [name, value, _shown(action), prose(action.help)]


def _shown(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.default in (None, False, [], ""):
        return ""
    return code(", ".join(action.default) if isinstance(action.default, list) else str(action.default))
