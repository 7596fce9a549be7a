"""Options that were given nothing, as `--model "$MODEL"` does where MODEL is not set: an error, and no default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import TyperException


def option(command: Any, ctx: Any, args: Sequence[str]) -> str:
    """The name of an option without a value in the arguments of `command`, or of the command that they name; else
    empty. Arguments that can't be parsed have none: their parser says what is wrong with them.
    """
    try:
        values, rest, _ = command.make_parser(ctx).parse_args(list(args))
    except TyperException:
        return ""
    for each in command.params:
        if each.param_type_name == "option" and _is_empty(values.get(each.name)):
            return str(each.opts[0])
    inner = command.get_command(ctx, rest[0]) if isinstance(command, TyperGroup) and rest else None
    return option(inner, type(ctx)(inner, parent=ctx), rest[1:]) if inner is not None else ""


def _is_empty(value: Any) -> bool:
    given = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, str) and not each.strip() for each in given)
