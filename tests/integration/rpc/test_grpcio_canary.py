"""The canary: says which private name of grpcio is gone. grpcio is pinned exactly because Meshgate uses these names.

A new release of grpcio is tried with this module first. What the names do is held by the other tests of this folder.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from meshgate.rpc.private import names

ROOT: Final = Path(__file__).parents[3]
PRIVATE: Final = ROOT / "meshgate" / "rpc" / "private"
SOURCE: Final = [
    path for folder in ("meshgate", "gateway", "services", "certs") for path in ROOT.glob(f"{folder}/**/*.py")
]


def found(dotted: str) -> Any:
    """What a dotted name stands for. Raises ImportError or AttributeError."""
    _, _, attributes = dotted.partition("cygrpc.") if "cygrpc" in dotted else dotted.partition("_server.")
    base = import_module(dotted[: len(dotted) - len(attributes) - 1])
    return reduce(getattr, attributes.split("."), base)


@pytest.mark.parametrize("name", names.USED)
def test_a_private_name_of_grpcio_is_there(name: str) -> None:
    assert found(name) is not None, f"grpcio {grpc.__version__} has no {name}"


async def test_a_channel_has_its_inner_channel_and_a_call_its_inner_call() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        made: Any = channel
        assert hasattr(made._channel, "call"), f"grpcio {grpc.__version__}: grpc.aio.Channel has no _channel.call"
        call: Any = channel.stream_stream("/a.B/C")()
        call.cancel()
        inner = call._cython_call
        for name in ("set_internal_error", "send_receive_close"):
            assert hasattr(inner, name), f"grpcio {grpc.__version__}: a call's _cython_call has no {name}"


def test_the_list_names_each_use() -> None:
    """Each name of cygrpc that the private folder reads is in the list, and the list holds no other."""
    read = {
        f"grpc._cython.cygrpc.{name}" for path in PRIVATE.glob("*.py") for name in _cygrpc(ast.parse(path.read_text()))
    }
    listed = {name for name in names.USED if name.count(".") == 3 and "cygrpc" in name}
    assert read | {"grpc._cython.cygrpc.socket"} == listed


def _cygrpc(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cygrpc":
            yield node.attr


@pytest.mark.parametrize(
    "path", [p for p in SOURCE if "/v1/" not in p.as_posix()], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_only_one_folder_reads_private_names_of_grpcio(path: Path) -> None:
    if path.parent == PRIVATE:
        return
    text = path.read_text()
    assert not re.search(r"grpc\._|grpc\.aio\._|cygrpc|_cython_call|from grpc(\.aio)? import _", text), path


@pytest.mark.parametrize("extra", ["gateway", "services"])
def test_grpcio_is_pinned_exactly_where_private_names_are_used(extra: str) -> None:
    """The SDK alone takes a range: it uses public names only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [needed for needed in project["optional-dependencies"][extra] if re.match(r"grpcio\b(?!-)", needed)]
    assert len(pins) == 1 and re.fullmatch(r"grpcio==\d+\.\d+\.\d+", pins[0])
