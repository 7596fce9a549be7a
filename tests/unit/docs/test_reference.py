"""The committed reference is fresh, and has every reason, metric, method, field, flag and function that there is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from meshgate import errors, reasons
from meshgate.cli.main import app
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, models_pb2, priority_pb2, sealed_pb2
from tools.reference import metrics
from tools.reference.__main__ import FOLDER

ROOT: Final = FOLDER.parents[1]
_FLAG: Final = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
_METRIC: Final = re.compile(r"meshgate_(?:gateway|generation|batcher)_\w+")
_FILES: Final = (classification_pb2, embedding_pb2, generation_pb2, models_pb2, priority_pb2, sealed_pb2)
_PROCESSES: Final = ("gateway", "services.embedding", "services.classification", "certs", "meshgate.runtime.probe")


def page(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def test_the_committed_pages_are_fresh() -> None:
    made = subprocess.run([sys.executable, "-m", "tools.reference"], cwd=ROOT, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")


@pytest.mark.parametrize("name", reasons.REASONS)
def test_every_reason_has_a_heading(name: str) -> None:
    assert f"\n### {name}\n" in page("reasons.md")


def strings(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _METRIC.fullmatch(node.value):
                yield node.value


def test_every_metric_whose_name_the_source_has_is_in_it() -> None:
    found = {name for part in ("gateway", "services", "meshgate") for name in strings(ROOT / part)}
    documented = page("metrics.md")
    assert len(found) > 20
    assert [name for name in found if not re.search(rf"`{name}(_total)?`", documented)] == []


def test_every_metric_has_a_type_and_says_what_it_means() -> None:
    rows = [line.split("|") for line in page("metrics.md").splitlines() if line.startswith("| <a")]
    assert {row[2].strip() for row in rows} == {"counter", "gauge", "histogram"}
    assert [row for row in rows if len(row[4].strip()) < 5] == []


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.__name__)
def test_every_message_field_value_and_method_is_in_it(file: Any) -> None:
    found = page(f"api-{file.__name__.rpartition('.')[2].removesuffix('_pb2')}.md")
    descriptor = file.DESCRIPTOR
    for message in descriptor.message_types_by_name.values():
        assert f"\n## {message.name}\n" in found
        assert [field.name for field in message.fields if f'id="{message.name}.{field.name}"' not in found] == []
    for enum in descriptor.enum_types_by_name.values():
        assert [value.name for value in enum.values if f"`{value.name}`" not in found] == []
    for service in descriptor.services_by_name.values():
        assert [method.name for method in service.methods if f"\n### {method.name}\n" not in found] == []


def helped(*names: str) -> str:
    """What `meshgate NAMES --help` prints, wide enough to break no flag."""
    return CliRunner(env={"COLUMNS": "300", "TERMINAL_WIDTH": "300"}).invoke(app, [*names, "--help"]).output


def section(names: str) -> str:
    return page("cli.md").partition(f"\n## {names}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    "names", re.findall(r"^## meshgate(.*)$", (FOLDER / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
)
def test_every_flag_that_help_shows_is_in_it(names: str) -> None:
    shown = section(f"meshgate{names}")
    assert shown
    assert [
        flag for flag in _FLAG.findall(helped(*names.split())) if flag not in (*_FLAG.findall(shown), "--help")
    ] == []


@pytest.mark.parametrize("module", _PROCESSES)
def test_every_flag_of_a_process_is_in_it(module: str) -> None:
    run = [sys.executable, "-m", module, "--help"]
    said = subprocess.run(
        run, cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "300"}
    )
    shown = section(f"python -m {module}")
    assert [flag for flag in _FLAG.findall(said.stdout) if flag not in (*_FLAG.findall(shown), "--help")] == []


def test_the_generation_process_has_the_flags_of_every_process() -> None:
    source = (ROOT / "services" / "generation" / "__main__.py").read_text(encoding="utf-8")
    assert "process.arguments(" in source
    assert "add_argument" not in source


def test_every_kind_of_error_and_every_function_of_the_sdk_is_in_it() -> None:
    found = page("sdk.md")
    kinds = [each.__name__ for each in errors.MeshError.__subclasses__()]
    wanted = [*(f"errors.{name}" for name in kinds), "client.connect", "client.connect_aio", "client.explain"]
    assert [name for name in wanted if f"\n### meshgate.{name}\n" not in found] == []


def test_metrics_of_the_process_are_those_that_the_library_reports() -> None:
    from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

    registry = CollectorRegistry()
    GCCollector(registry=registry)
    ProcessCollector(registry=registry)
    listed = {row.name for row in (*metrics._process_of(""), *metrics._garbage())}
    reported = {f"{each.name}_total" if each.type == "counter" else each.name for each in registry.collect()}
    assert not sys.platform.startswith("linux") or reported == listed
