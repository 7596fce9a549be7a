"""A real process, of which everything that it and its libraries say is JSON, its last words too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshgate.runtime.logs import stderr_reader

SECONDS = 60


def ran(program: str, *, status: int | None = 0) -> list[dict[str, Any]]:
    """What a process logs."""
    begun = f"from meshgate.runtime import startup\nstartup.begin('test')\nimport os, sys, logging\n{program}\n"
    run = subprocess.run([sys.executable, "-c", begun], capture_output=True, timeout=SECONDS, check=False)
    assert status is None or run.returncode == status, run.stderr
    return [json.loads(line) for line in run.stderr.splitlines()]


def said(lines: list[dict[str, Any]]) -> list[str]:
    return [line["message"] for line in lines]


END = "startup.end()"
WAYS = {
    "a descriptor": "os.write(2, b'hello\\n')",
    "Python": "print('hello', file=sys.stderr)",
    "a child": "import subprocess; subprocess.run(['/bin/sh', '-c', 'echo hello >&2'])",
    "C": "import ctypes; ctypes.CDLL(None).perror(b'hello')",
    "without an end": "os.write(2, b'hello')",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("end", [END, "", "os._exit(0)", "sys.exit(0)"])
def test_whatever_is_written_is_json(way: str, end: str) -> None:
    (line,) = ran(f"{way}\n{end}")
    assert line["message"].startswith("hello")
    assert (line["service"], line["logger"]) == ("test", "stderr")


DEATHS = {
    "abort": ("os.write(2, b'last words\\n'); os.abort()", -signal.SIGABRT),
    "free": ("import ctypes; os.write(2, b'last words\\n'); ctypes.CDLL(None).free(ctypes.c_void_p(8))", None),
    "kill": ("os.write(2, b'last words\\n'); os.kill(os.getpid(), 9)", -signal.SIGKILL),
    "segfault": ("import ctypes; os.write(2, b'last words\\n'); ctypes.string_at(0)", -signal.SIGSEGV),
}


@pytest.mark.parametrize("death", DEATHS)
def test_a_crash_loses_no_word(death: str) -> None:
    """With the interpreter's lock held, and behind a flood that was cut."""
    program, status = DEATHS[death]
    lines = ran(f"os.write(2, b'noise\\n' * 5000)\n{program}", status=status)
    assert "last words" in said(lines)[-3:]
    assert len(lines) < 200
    assert sum(line.get("left_out", 0) for line in lines) > 4800


def test_a_flood_is_bounded_and_counted() -> None:
    lines = ran(f"for _ in range(100): os.write(2, b'noise\\n' * 100)\n{END}")
    assert len(lines) < 250
    count = sum(line.get("left_out", 0) for line in lines)
    assert count + said(lines).count("noise") == 10_000


def test_our_own_lines_go_past_it() -> None:
    lines = ran(f"os.write(2, b'noise\\n' * 5000)\nlogging.getLogger('x').error('ours')\n{END}")
    assert [line["logger"] for line in lines if line["message"] == "ours"] == ["x"]


def test_a_flood_that_does_not_end_is_counted_meanwhile() -> None:
    flood = "t = time.monotonic()\nwhile time.monotonic() < t + 2.5: os.write(2, b'noise\\n' * 10); time.sleep(.001)"
    counts = [line["left_out"] for line in ran(f"import time\n{flood}\n{END}") if "left_out" in line]
    assert len(counts) >= 3


def test_another_pump_takes_over_from_one_that_is_killed() -> None:
    """What was written meanwhile is there, and the process ends as it would."""
    kill = "stderr_capture._captured._pump.kill(); os.write(2, b'line %d\\n' % n); time.sleep(.2)"
    lines = ran(f"import time\nfrom meshgate.runtime.logs import stderr_capture\nfor n in range(3):\n  {kill}\n{END}")
    assert said(lines) == ["line 0", "line 1", "line 2"]


def test_where_pumps_never_live_standard_error_is_what_it_was() -> None:
    always = (
        "import time\nfrom meshgate.runtime.logs import stderr_capture\nkeeper = stderr_capture._captured._keeper\n"
    )
    kill = "while keeper.is_alive(): stderr_capture._captured._pump.kill(); time.sleep(.01)\n"
    lines = ran(f'{always}{kill}os.write(2, b\'{{"message": "raw"}}\\n\')\n{END}')
    assert said(lines) == ["raw"]


STANDARD = {"in": [0], "out": [1], "error": [2], "all": [0, 1, 2], "in and error": [0, 2]}


@pytest.mark.parametrize("closed", STANDARD.values(), ids=STANDARD)
def test_standard_descriptors_that_are_closed(closed: list[int]) -> None:
    """No file that is opened later becomes one of them, and the second takes nothing."""
    program = (
        "import sys; [__import__('os').close(n) for n in map(int, sys.argv[2:])]; sys.stderr = sys.stderr if"
        " '2' not in sys.argv[2:] else None; from meshgate.runtime import startup; startup.begin('test')\n"
        "import logging, os; opened = os.open('/dev/null', 0); logging.getLogger('x').error('ours')\n"
        "print('theirs', file=sys.stderr); os.write(2, b'theirs')\n"
        "for n in (0, 1, 2): os.fstat(n)\n"
        "if '1' in sys.argv[2:]:\n  try: os.write(1, b'x'); opened = 0\n  except OSError: pass\n"
        "os.write(int(sys.argv[1]), b'above' if opened > 2 else b'taken'); startup.end()"
    )
    read, write = os.pipe()
    run = subprocess.run(
        [sys.executable, "-c", program, str(write), *map(str, closed)],
        pass_fds=[write],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    os.close(write)
    assert (run.returncode, os.read(read, 100)) == (0, b"above"), run.stderr
    os.close(read)


def test_a_full_disk_does_not_end_the_pump() -> None:
    """It leaves out what has no room and reads on: the disk may have room later."""
    command = [sys.executable, "-I", "-S", stderr_reader.__file__, "test"]
    with Path("/dev/full").open("wb") as full:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=full) as running:
            assert running.stdin is not None
            for _ in range(200):
                running.stdin.write(b"x" * 4000 + b"\n")
                running.stdin.flush()
            assert running.poll() is None
        assert running.returncode == 0


def test_a_reader_who_stalls_keeps_nobody_waiting() -> None:
    """The process writes a hundred times what a pipe holds, and the reader reads after that."""
    program = (
        "from meshgate.runtime import startup; startup.begin('test'); import os\n"
        "for _ in range(2000): os.write(2, b'x' * 4000 + b'\\n')\n"
        "os.write(1, b'done'); startup.end()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.read(4) == b"done"
        lines = [json.loads(line) for line in run.stderr]
    assert run.returncode == 0
    assert sum(line.get("left_out", 0) for line in lines) > 1500


UNCAUGHT = {
    "main": "raise ValueError('a secret')",
    "thread": "import threading\nt = threading.Thread(target=lambda: [][1:2].index('a secret'))\nt.start(); t.join()",
    "finaliser": "class X:\n  def __del__(self): raise ValueError('a secret')\nX()",
}


@pytest.mark.parametrize("where", UNCAUGHT)
def test_an_error_that_nobody_catches_is_told_without_its_text(where: str) -> None:
    lines = ran(UNCAUGHT[where], status=None)
    assert [line["exception"][0]["type"] for line in lines] == ["builtins.ValueError"]
    assert "secret" not in json.dumps(lines)


MODULES = ["gateway", "services.generation", "services.embedding", "services.classification"]


PROBE = """
import atexit, ctypes, json, os, resource, runpy, sys
seen = {}
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc": seen.setdefault("verbosity", os.environ.get("GRPC_VERBOSITY"))
sys.meta_path.insert(0, Finder())
def tell():
    seen["core"] = resource.getrlimit(resource.RLIMIT_CORE)
    seen["dumpable"] = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    os.write(1, b"\\n" + json.dumps(seen).encode())
atexit.register(tell)
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
CLI = "from meshgate.cli.main import main; main()"


@pytest.mark.parametrize("module", [*MODULES, "meshgate.runtime.probe", "cli"])
def test_every_process_is_hardened_quiets_grpc_and_fails_in_json(module: str, tmp_path: Path) -> None:
    program, arguments = PROBE, [module, "--config", str(tmp_path / "none.toml")]
    if module == "cli":
        program, arguments = PROBE.replace("runpy.run_module", "0 and runpy.run_module") + CLI, ["", "models"]
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"}
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        timeout=SECONDS,
        check=False,
        env={**environment, "MESHGATE_HOME": str(tmp_path)},
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    if module in MODULES:
        assert [json.loads(line)["level"] for line in run.stderr.splitlines()] == ["error"]
    assert seen == {"verbosity": "ERROR", "core": [0, 0], "dumpable": 0}
