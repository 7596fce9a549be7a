"""Workflows, locks, version and release notes agree with the sources that they speak of."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import meshgate
from tools import fresh_locks

ROOT = fresh_locks.ROOT
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_ci_runs_what_must_pass_on_every_supported_python() -> None:
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())["jobs"]["ci"]
    assert ci["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == ">=3.11"
    assert ci["steps"][-1] == {"run": ".ci/run"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_only_targets_and_scripts_that_there_are(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z -]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for line in targets for name in line.split()}
    text = workflow.read_text().replace("canary-${{ matrix.newer }}", "canary-grpcio")
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= named
    assert all((ROOT / script).exists() for script in re.findall(r"\b(deploy/[a-z]+\.sh)", text))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_each_action_by_its_commit_and_starts_without_rights(workflow: Path) -> None:
    uses = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[a-z-]+/[a-z-]+@[0-9a-f]{40}", name) for name in uses)
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}


def test_the_gateway_and_the_services_pin_the_grpcio_whose_private_names_they_use() -> None:
    locked = fresh_locks.pins(ROOT / "requirements.lock")["grpcio"]
    for extra in ("gateway", "services"):
        assert f"grpcio=={locked}" in PROJECT["optional-dependencies"][extra]
    assert "grpcio>=1.85,<2" in PROJECT["dependencies"]  # the SDK takes a range


def test_the_locks_fit() -> None:
    assert list(fresh_locks.problems(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("requirements.lock", r" \\\n +--hash=\S+", "", "requirements.lock: annotated-doc has no hash"),
        ("deploy/gateway.lock", r"^pyjwt==[^ ]+", "pyjwt==1.0", "deploy/gateway.lock: pyjwt is 1.0, and pyproject"),
        ("deploy/gateway.lock", r"^pyjwt==", "pyjwx==", "deploy/gateway.lock: pyjwt is missing"),
        ("requirements-dev.lock", r"^idna==[^ ]+", "idna==1.0", "requirements-dev.lock: idna is 1.0, and "),
        ("requirements-torch.lock", r"^torch==.*", "torch==1.0", "requirements.lock: torch is 1.0, and pyproject"),
    ],
)
def test_a_lock_that_does_not_fit_is_found(tmp_path: Path, file: str, old: str, new: str, problem: str) -> None:
    names = [*fresh_locks.LOCKS, fresh_locks.TORCH, "requirements-models.lock", "pyproject.toml"]
    (tmp_path / "deploy").mkdir()
    for name in names:
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / file).read_text()
    count = text.count("--hash") if "hash" in old else 1
    (tmp_path / file).write_text(re.sub(old, new, text, count=count, flags=re.MULTILINE))
    assert any(found.startswith(problem) for found in fresh_locks.problems(tmp_path))


def test_the_version_has_one_source() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT


def release(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "deploy" / "release.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_sources_are_ready_for_a_release_of_their_version() -> None:
    assert release("check", f"v{meshgate.__version__}").stderr == ""
    assert release("notes", f"v{meshgate.__version__}").stdout.count("\n- ") > 10


@pytest.mark.parametrize(
    ("tag", "said"), [("v9.9.9", "another version than 9.9.9"), ("0.1.0", "usage"), ("v1", "usage")]
)
def test_a_tag_of_another_version_is_no_release(tag: str, said: str) -> None:
    done = release("check", tag)
    assert done.returncode == 1
    assert said in done.stderr
