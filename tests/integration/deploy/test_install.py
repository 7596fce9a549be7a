"""`make up` and `make test` from whatever is there: an old Python, a broken environment, no GPU, an interruption.

The real Makefile and the real script, with a Python whose `venv` and `pip` only write down what they were asked for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = tuple(path.name for path in ROOT.glob("requirements*.lock"))
STUB = r"""#!/bin/bash
# A Python of version @VERSION@.
case "$1 $2" in
  "-c import sys; print"*) [ @VERSION@ != gone ] || exit 127
      case "$2" in *base_prefix*) echo "@BASE@ @VERSION@" ;; *) echo @VERSION@ ;; esac ;;
  "-c import pip") [ ! -e "$(dirname "$0")/nopip" ] ;;
  "-c import importlib.metadata"*) cat "$(dirname "$0")/../has-torch" 2>/dev/null ;;
  "-m venv")
      echo "venv $3 by @VERSION@" >>"$CALLS"
      mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
      echo "command = $0 -m venv $(pwd -P)/$3" >"$3/pyvenv.cfg"
      printf '#!/bin/bash\necho "meshgate $*" >>"$CALLS"\n' >"$3/bin/meshgate"
      printf '#!/bin/bash\necho "pytest $*" >>"$CALLS"\n' >"$3/bin/pytest"
      chmod +x "$3"/bin/* ;;
  "-m pip")
      case "$*" in
        *--dry-run*--index-url*) cat "$REPORTS/index" 2>/dev/null || exit 1 ;;
        *--dry-run*) cat "$REPORTS/usual" 2>/dev/null || exit 1 ;;
        *) echo "pip ${*:3}" >>"$CALLS"
           [ -z "$FAIL" ] || case "$*" in *"$FAIL"*) echo "no such package" >&2; exit 1 ;; esac
           [ -z "$HANG" ] || case "$*" in *"$HANG"*) touch "$CALLS.hangs"
              trap "exit 1" TERM INT # as pip ends
              sleep 60 & wait ;; esac ;;
      esac ;;
  *) exec @REAL@ "$@" ;;
esac
"""
CPU, CUDA = ([{"metadata": {"requires_dist": needs}}] for needs in (["sympy"], ["sympy", "nvidia-cublas-cu13==13.1"]))


class Checkout:
    """A clean clone, Pythons on PATH, and what the registry has."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "clone"
        self.calls = folder / "calls"
        self.reports = folder / "reports"
        self.devices = folder / "dev"
        self.path = folder / "bin"
        for made in (self.root / "deploy", self.reports, self.devices, self.path):
            made.mkdir(parents=True)
        for name in ("Makefile", "pyproject.toml", "deploy/install.sh", *LOCKS):
            shutil.copy(ROOT / name, self.root / name)
        self.registry(CPU)
        self.python("python3", "3.12")

    def python(self, name: str, version: str, base: str = "/usr") -> Path:
        made = self.path / name
        values = {"@VERSION@": version, "@BASE@": base, "@REAL@": sys.executable}
        text = STUB
        for key, value in values.items():
            text = text.replace(key, value)
        made.unlink(missing_ok=True)
        made.write_text(text)
        made.chmod(0o755)
        return made

    def registry(self, usual: object, index: object = None) -> None:
        for name, found in (("usual", usual), ("index", index)):
            (self.reports / name).unlink(missing_ok=True)
            if found is not None:
                (self.reports / name).write_text(json.dumps({"install": found}))

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "TORCH", "MAKEFLAGS"}}
        own = {"PATH": f"{self.path}:/usr/bin:/bin", "CALLS": str(self.calls), "REPORTS": str(self.reports)}
        return {**kept, **own, "DEVICES": str(self.devices), "FAIL": "", "HANG": "", **more}

    def make(self, *arguments: str, **more: str) -> tuple[int, list[str], str]:
        """The exit status, what was called, and what was said."""
        self.calls.write_text("")
        done = subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, self.calls.read_text().splitlines(), done.stderr

    def called(self, *arguments: str, **more: str) -> list[str]:
        status, calls, said = self.make(*arguments, **more)
        assert status == 0, said
        return calls


@pytest.fixture
def clone(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def installs(calls: list[str]) -> list[str]:
    """What pip was asked for."""
    return [call.split()[-1] for call in calls if call.startswith("pip install")]


TORCH = next(line for line in (ROOT / "requirements-torch.lock").read_text().splitlines() if line.startswith("torch=="))
SERVING = [TORCH, "requirements.lock", "requirements-torch.lock", "requirements-models.lock", "."]


@pytest.mark.parametrize("first", ["up", "test"])
def test_each_works_alone_and_first(clone: Checkout, first: str) -> None:
    calls = clone.called(first, "ARGS=--flag")
    assert calls[0] == "venv .venv by 3.12"
    assert installs(calls) == (SERVING if first == "up" else [*SERVING, "requirements-dev.lock"])
    assert calls[-1] == ("meshgate up --flag" if first == "up" else "pytest --flag")
    assert installs(clone.called(first)) == []


def test_everything_locked_is_installed_by_its_hash_but_torch(clone: Checkout) -> None:
    calls = [call for call in clone.called("test") if call.endswith(".lock")]
    unchecked = [call.split()[-1] for call in calls if "--require-hashes" not in call]
    assert unchecked == ["requirements-torch.lock"]
    assert len(calls) == 4


def test_the_whole_run_measures_the_unit_tests_coverage_and_a_part_does_not(clone: Checkout) -> None:
    assert clone.called("test")[-2:] == [
        "pytest tests/unit -n 2 --dist loadfile --cov --cov-report=",
        "pytest tests/integration",
    ]
    assert clone.called("test", "ARGS=tests/unit") == ["pytest tests/unit"]


def test_what_is_there_is_not_installed_again(clone: Checkout) -> None:
    clone.called("test")
    assert installs(clone.called("test")) == []
    os.utime(clone.root / "requirements-dev.lock")
    assert installs(clone.called("test")) == ["requirements-dev.lock"]
    (clone.root / ".venv" / "has-torch").write_text(TORCH.removeprefix("torch=="))
    os.utime(clone.root / "requirements.lock")
    assert installs(clone.called("test")) == [*SERVING[1:], "requirements-dev.lock"]


@pytest.mark.parametrize("version", ["2.7", "3.8", "3.9", "3.10", "gone"])
def test_a_python_that_is_too_old_is_one_sentence_and_the_next_attempt_works(clone: Checkout, version: str) -> None:
    clone.python("python3", version)
    clone.python("python3.13", "3.13")
    status, calls, said = clone.make("up")
    ours = [line for line in said.splitlines() if not line.startswith("make")]
    what = "not there" if version == "gone" else version
    named = "name another, as in `make up PYTHON=python3.13`"
    assert ours == [f"Meshgate needs Python 3.11 or newer, and python3 is {what}: {named}"]
    assert (status, calls) == (2, [])
    assert not (clone.root / ".venv").exists()
    assert clone.called("up", "PYTHON=python3.13")[0] == "venv .venv by 3.13"
    assert installs(clone.called("up")) == []  # the environment is good, whatever python3 is


@pytest.mark.parametrize(
    "how", ["half made", "no pip", "too old", "vanished", "another", "interrupted", "moved", "copied"]
)
def test_an_environment_that_is_no_good_is_made_anew(clone: Checkout, how: str) -> None:
    clone.called("up")
    flags: tuple[str, ...] = ()
    folder = clone.root / ".venv"
    match how:
        case "half made":
            shutil.rmtree(folder / "bin")
        case "no pip":
            (folder / "bin" / "nopip").touch()
        case "too old":
            shutil.copy(clone.python("old", "3.10"), folder / "bin" / "python")
        case "vanished":
            (folder / "bin" / "python").unlink()
            (folder / "bin" / "python").symlink_to("/nowhere/python3")
        case "another":
            clone.python("python3.13", "3.13")
            flags = ("PYTHON=python3.13",)
        case "interrupted":
            (folder / "unfinished").touch()
        case "moved":
            clone.root = clone.root.rename(clone.root.parent / "moved to a name with blanks")
        case "copied":
            clone.root = Path(shutil.copytree(clone.root, clone.root.parent / "copy", symlinks=True))
    calls = clone.called("up", *flags)
    assert calls[0] == f"venv .venv by {'3.13' if how == 'another' else '3.12'}"
    assert installs(calls) == SERVING
    assert installs(clone.called("up", *flags)) == []


def test_the_same_python_by_another_name_is_no_other(clone: Checkout) -> None:
    clone.called("up")
    clone.python("python3.12", "3.12")
    assert installs(clone.called("up", "PYTHON=python3.12")) == []
    assert installs(clone.called("up", PYTHON="python3.12")) == []


def test_an_installation_that_fails_goes_on_where_it_was(clone: Checkout) -> None:
    status, calls, said = clone.make("up", FAIL="requirements-models.lock")
    assert (status, calls[-1].split()[-1]) == (2, "requirements-models.lock")
    assert "no such package" in said
    calls = clone.called("up")
    assert not any(call.startswith("venv") for call in calls)
    assert installs(calls)[-4:] == SERVING[1:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_installation_that_is_interrupted_begins_anew(clone: Checkout, number: signal.Signals) -> None:
    clone.calls.write_text("")
    with subprocess.Popen(
        ["make", "up"],
        cwd=clone.root,
        env=clone.environment(HANG="requirements.lock"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not Path(f"{clone.calls}.hangs").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, number)
        process.wait(30)
    status, calls, said = clone.make("up")
    assert (status, calls[0]) == (0, "venv .venv by 3.12")
    assert "the last installation was interrupted" in said


@pytest.mark.parametrize(
    ("gpu", "flag", "usual", "index", "asked", "said"),
    [
        (False, "", CPU, None, "", "for the CPU: 0.2 GB"),
        (True, "", CPU, None, "", "no GPU is used"),
        (False, "", CUDA, CPU, "--index-url https://download.pytorch.org/whl/cpu", "0.2 GB (TORCH=cuda"),
        (False, "", CUDA, None, "", "5.2 GB; https://download.pytorch.org/whl/cpu has no build"),
        (False, "", CUDA, CUDA, "", "5.2 GB; https://download.pytorch.org/whl/cpu has no build"),
        (True, "", CUDA, CPU, "", "with the packages of CUDA: 5.2 GB (TORCH=cpu"),
        (True, "TORCH=cpu", CUDA, CPU, "--index-url", "0.2 GB (TORCH=cuda"),
        (False, "TORCH=cuda", CUDA, CPU, "", "with the packages of CUDA: 5.2 GB (TORCH=cpu"),
        (False, "", None, None, "", "for the CPU: 0.2 GB"),
    ],
)
def test_the_build_of_torch_is_that_of_the_machine(
    clone: Checkout, gpu: bool, flag: str, usual: object, index: object, asked: str, said: str
) -> None:
    clone.registry(usual, index)
    if gpu:
        (clone.devices / "nvidia0").touch()
    status, calls, told = clone.make("up", *([flag] if flag else []))
    torch = next(call for call in calls if call.endswith(TORCH))
    assert status == 0
    assert said in told
    assert (asked in torch) if asked else ("--index-url" not in torch)


def test_another_registry_for_the_cpu_and_a_change_of_mind(clone: Checkout) -> None:
    clone.registry(CUDA, CPU)
    calls = clone.called("up", "TORCH_INDEX=https://mirror.internal/cpu")
    assert any("--index-url https://mirror.internal/cpu" in call for call in calls)
    (clone.root / ".venv" / "has-torch").write_text(TORCH.removeprefix("torch=="))
    assert installs(clone.called("up", "TORCH=cpu")) == []
    assert installs(clone.called("up", "TORCH=cuda")) == SERVING
    assert installs(clone.called("up")) == []


def test_a_build_that_there_is_not(clone: Checkout) -> None:
    status, _, said = clone.make("up", "TORCH=rocm")
    assert status == 2
    assert "TORCH is rocm: it is cpu, cuda or auto" in said
