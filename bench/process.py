"""Processes that are measured: started, and what they take of the machine. Linux, from the kernel's own counters."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CPUCLOCK_SCHED: Final = 2
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 30
_POLL_SECONDS: Final = 0.05


@contextmanager
def running(command: Iterable[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """A process whose output goes to `log`, in this environment or ours; yields its pid and ends it in the end."""
    with (
        log.open("ab") as output,
        subprocess.Popen([*command], stdout=output, stderr=output, env=environment) as process,  # noqa: S603 - our own commands
    ):
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command of a module of ours."""
    return (sys.executable, "-m", module, *arguments)


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_listening(port: int) -> None:
    """Returns once somebody takes connections at a port of this machine. Raises TimeoutError."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"nobody listens at port {port}")


def alive(pid: int) -> bool:
    """Whether a child of this process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family(pids: Iterable[int]) -> list[int]:
    """These processes and all that they started."""
    found = list(pids)
    for pid in found:  # grows while it is read
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes have taken, all threads, user and system: the clock of clock_getcpuclockid(3), which is
    exact where /proc counts in hundredths of a second.
    """
    return sum(time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)


def resident_bytes(pids: Iterable[int]) -> int:
    """Memory that processes hold: resident set sizes summed, pages that they share counted for each."""
    return sum(_resident(pid) for pid in pids)


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
