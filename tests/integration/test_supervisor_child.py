"""Real processes under supervision: one that dies comes back, one that is stopped is gone, none survives us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meshgate.supervisor.backoff import Backoff
from meshgate.supervisor.child import Child

SLEEPER = "import signal; signal.pause()"
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of another process's state
            await asyncio.sleep(0.01)


async def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    deaths: list[int] = []
    pids: list[int | None] = []
    again = asyncio.Event()

    def died(child: Child, status: int, wait: float) -> None:
        deaths.append(status)
        pids.append(child.pid)
        if len(deaths) == 2:
            again.set()

    command = [sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(3)"]
    child = Child("x", command, tmp_path / "log", died, Backoff(first=0.01, longest=0.02))
    task = asyncio.create_task(child.supervise())
    async with asyncio.timeout(20):
        await again.wait()
    await child.stop(5)
    await task
    assert deaths[:2] == [3, 3]
    assert pids[0] != pids[1]
    assert child.last_line() == "why"


async def test_one_that_is_stopped_is_gone(tmp_path: Path) -> None:
    child = Child("x", [sys.executable, "-c", SLEEPER], tmp_path / "log", lambda *_: None)
    task = asyncio.create_task(child.supervise())
    await until(lambda: child.pid is not None)
    await child.stop(10)
    await task
    assert child.pid is not None
    assert not alive(child.pid)


async def test_one_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    child = Child("x", [sys.executable, "-c", STUBBORN], tmp_path / "log", lambda *_: None)
    task = asyncio.create_task(child.supervise())
    await until(lambda: child.last_line() == "ready")
    await child.stop(0.1)
    await task
    assert child.pid is not None
    assert not alive(child.pid)


PARENT = """
import asyncio, sys
from collections.abc import Callable
from pathlib import Path
from meshgate.supervisor.child import Child
child = Child("x", [sys.executable, "-c", "import signal; signal.pause()"], Path(sys.argv[1]), lambda *_: None)
async def main():
    task = asyncio.create_task(child.supervise())
    while child.pid is None:
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await task
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_none_survives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - starting it is quick
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
