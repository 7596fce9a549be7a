"""Starting workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

from bench.services.contenders.contender import Contender, Worked
from bench.services.contenders.place import Place

_ROOT = Path(__file__).resolve().parents[3]
_STOP_SECONDS = 30


async def start(
    place: Place,
    name: str,
    title: str,
    module: str,
    *flags: str,
    python: str = sys.executable,
    tokens: int = 0,
    sleeps: bool = False,
) -> Contender:
    """A worker that is ready: `module` of bench.services.workers, in the environment of that `python`; `sleeps` is
    whether its OpenMP threads do as those of servers. Raises NotReady or TimeoutError.
    """
    command = (python, "-m", f"bench.services.workers.{module}", *flags)
    environment = (place.shared if sleeps else place.environment)(PYTHONPATH=str(_ROOT))
    pid, orders, replies = _begin(place, name, command, environment)
    worked = Worked(orders, replies, tokens)
    await worked.ready()
    return Contender(name, title, (pid,), worked)


def _begin(
    place: Place, name: str, command: tuple[str, ...], environment: dict[str, str]
) -> tuple[int, IO[bytes], IO[bytes]]:
    """Its pid, its input and its output."""
    log, pipe = place.stack.enter_context(place.log(name).open("ab")), subprocess.PIPE
    made = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, env=environment)  # noqa: S603 - our own command
    process = place.stack.enter_context(made)
    place.stack.callback(_end, process)
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    return process.pid, process.stdin, process.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
