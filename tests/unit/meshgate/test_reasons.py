"""The table of reasons and the source agree: names, kinds of error and senders."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from meshgate import errors, reasons

ROOT: Final = Path(reasons.__file__).parents[1]
_WORD: Final = re.compile(r"[A-Z][A-Z0-9]+(_[A-Z0-9]+)*")
_NO_REASONS: Final = {"OK", *FieldDescriptorProto.Type.keys(), *FieldDescriptorProto.Label.keys()}
_SENDERS: Final = {"gateway": reasons.GATEWAY, "services": reasons.SERVICE, "meshgate/client": reasons.SDK}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The modules that make errors: those that import their kinds, and the kinds themselves."""
    for part in ("meshgate", "gateway", "services"):
        for path in (ROOT / part).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith("meshgate/v1/") or name == "meshgate/reasons.py":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if name == "meshgate/errors.py" or any(imports_errors(node) for node in ast.walk(tree)):
                yield name, tree


def imports_errors(node: ast.AST) -> bool:
    if not isinstance(node, ast.ImportFrom):
        return False
    return node.module == "meshgate.errors" or (
        node.module == "meshgate" and any(name.name == "errors" for name in node.names)
    )


def literals() -> dict[str, set[str]]:
    """Every word that has the form of a reason, with the modules that hold it."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _WORD.fullmatch(node.value):
                found[node.value].add(name)
    return found


def raised() -> Iterator[tuple[str, str, str]]:
    """The module, the reason and the kind of each error that is made with a literal."""
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for word in node.keywords:
                    if word.arg == "reason" and isinstance(word.value, ast.Constant):
                        yield name, str(word.value.value), kind_of(node.func)


def kind_of(function: ast.expr) -> str:
    """`InvalidArgument` of `InvalidArgument`, `errors.InvalidArgument` and `errors.InvalidArgument.of`."""
    return ast.unparse(function).removesuffix(".of").rpartition(".")[2]


def sender(module: str) -> str | None:
    return next((who for where, who in _SENDERS.items() if module.startswith(f"{where}/")), None)


def test_the_table_has_every_reason_of_the_source_and_no_other() -> None:
    assert literals().keys() - _NO_REASONS == reasons.REASONS.keys()


def test_no_reason_is_in_the_table_twice() -> None:
    assert sum(len(topic.reasons) for topic in reasons.TOPICS) == len(reasons.REASONS)


def test_the_kinds_are_those_that_the_source_raises() -> None:
    wrong = [
        (reason, kind)
        for _, reason, kind in raised()
        if hasattr(errors, kind) and kind not in {each.__name__ for each in reasons.REASONS[reason].kinds}
    ]
    assert wrong == []


def test_the_senders_include_each_part_that_raises_the_reason() -> None:
    parts = ((sender(module), reason) for module, reason, _ in raised())
    assert [(part, reason) for part, reason in parts if part and part not in reasons.REASONS[reason].senders] == []


@pytest.mark.parametrize("name", reasons.REASONS)
def test_each_sender_has_the_reason_in_its_source_or_in_a_shared_module(name: str) -> None:
    parts = {sender(module) for module in literals()[name]}
    assert None in parts or {*reasons.REASONS[name].senders} <= parts


def test_every_kind_of_error_has_a_default_reason_in_the_table() -> None:
    kinds = errors.MeshError.__subclasses__()
    assert all(kind in reasons.REASONS[kind.default_reason].kinds for kind in kinds)
