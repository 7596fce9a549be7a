"""The docstrings below the fields of a class."""

from __future__ import annotations

import ast
import inspect
from textwrap import dedent


def of_fields(described: type) -> dict[str, str]:
    """Field to the docstring below it, in the order of the source; a field without one is left out."""
    [body] = ast.parse(dedent(inspect.getsource(described))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = str(text.value.value)
    return found
