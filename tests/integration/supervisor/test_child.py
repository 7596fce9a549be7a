"""Real processes under supervision: one that dies comes back, one that is stopped is gone, none survives us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from meshgate.runtime.child.backoff import Backoff
from meshgate.runtime.child.child import Child
from tests.support.fixtures.waiting import until

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


@dataclass
class Witness:
    """Remembers what became of a child, and tells who waits for a number of deaths."""

    pids: list[int | None] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    def started(self, child: Child) -> None:
        self.pids.append(child.pid)
        self.first.set()

    def died(self, child: Child, status: int, wait: float) -> None:
        self.deaths.append(status)
        self.waits.append(wait)
        if len(self.deaths) == 2:
            self.enough.set()


@asynccontextmanager
async def supervised(log: Path, program: str, backoff: Backoff | None = None) -> AsyncIterator[tuple[Child, Witness]]:
    """A child that runs a Python program, until we leave; none is left then."""
    witness = Witness()
    child = Child("x", [sys.executable, "-c", program], log, witness, backoff)
    task = asyncio.create_task(child.supervise())
    try:
        async with asyncio.timeout(60):
            yield child, witness
    finally:
        await child.stop(10)
        await task
        assert not any(alive(pid) for pid in witness.pids if pid is not None)


async def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    program = "import sys; print('why\\n', file=sys.stderr); sys.exit(3)"
    async with supervised(tmp_path / "log", program, Backoff(first=0.01, longest=0.02)) as (child, witness):
        await witness.enough.wait()
    assert witness.deaths[:2] == [3, 3]
    assert witness.pids[0] != witness.pids[1]
    assert child.last_line() == "why"


async def test_one_that_is_killed_is_said_to_be(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    async with supervised(tmp_path / "log", program, Backoff(first=0.01, longest=0.02)) as (_, witness):
        await witness.enough.wait()
    assert witness.deaths[0] == -signal.SIGKILL


async def test_one_that_is_stopped_is_gone_and_stays_gone(tmp_path: Path) -> None:
    async with supervised(tmp_path / "log", SLEEPER) as (child, witness):
        await witness.first.wait()
        await child.stop(10)
        assert child.pid is not None
        assert not alive(child.pid)
    assert (len(witness.pids), witness.deaths) == (1, [])


async def test_one_that_waits_for_its_next_start_is_stopped_at_once(tmp_path: Path) -> None:
    async with supervised(tmp_path / "log", "raise SystemExit(1)", Backoff(first=3600, longest=3600)) as (_, witness):
        await until(lambda: bool(witness.deaths))
    assert len(witness.pids) == 1


async def test_one_that_was_never_started_is_stopped_at_once(tmp_path: Path) -> None:
    child = Child("x", [sys.executable, "-c", SLEEPER], tmp_path / "log", Witness())
    await child.stop(3600)
    await child.supervise()
    assert child.pid is None


async def test_one_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    async with supervised(tmp_path / "log", STUBBORN) as (child, _):
        await until(lambda: child.last_line() == "ready")
        await child.stop(0.1)
        assert child.pid is not None
        assert not alive(child.pid)


async def test_what_it_started_goes_with_it(tmp_path: Path) -> None:
    program = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).pid)"
    async with supervised(tmp_path / "log", program, Backoff(first=3600, longest=3600)) as (child, witness):
        await until(lambda: bool(witness.deaths))
        await until(lambda: not alive(int(child.last_line())))


async def test_a_long_log_is_not_read_for_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 100_000 + b"\nlast \xff\n\n")
    child = Child("x", [], tmp_path / "log", Witness())
    assert child.last_line() == "last \ufffd"


async def test_one_without_a_log_has_no_last_line(tmp_path: Path) -> None:
    assert Child("x", [], tmp_path / "log", Witness()).last_line() == ""


PARENT = """
import asyncio, sys
from pathlib import Path
from meshgate.runtime.child.child import Child

class Witness:
    def started(self, child):
        print(child.pid, flush=True)
    def died(self, child, status, wait):
        pass

asyncio.run(Child("x", [sys.executable, "-c", sys.argv[2]], Path(sys.argv[1]), Witness()).supervise())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
async def test_none_survives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - starting it is quick
        [sys.executable, "-c", PARENT, str(tmp_path / "log"), STUBBORN], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.to_thread(parent.stdout.readline))
        await until(lambda: "ready" in (tmp_path / "log").read_text())  # it heeds no SIGTERM from now on
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        await until(lambda: not alive(pid))
