"""One process of the mesh: started, waited for, started again, and never left behind.

Each child is the leader of a session of its own, so that Ctrl-C reaches the supervisor alone, which then stops the
children in order. On Linux the kernel also sends every child SIGTERM when the supervisor dies in any way, SIGKILL
included (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from meshgate.supervisor.backoff import Backoff

_PR_SET_PDEATHSIG: Final = 1

Died = Callable[["Child", int, float], None]


class Child:
    """A process under supervision."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, died: Died, backoff: Backoff | None = None
    ) -> None:
        """`died(child, status, wait)` is told of each death and how long until the next start."""
        self.name = name
        self.log = log
        self.pid: int | None = None
        self._command = command
        self._died = died
        self._backoff = backoff or Backoff()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def supervise(self) -> None:
        """Keeps the process running until `stop`. Raises OSError when it can't be started at all."""
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run()
            if self._stopping.is_set():
                return
            wait = self._backoff.after(time.monotonic() - started, random.random())  # noqa: S311 - spreads load only
            self._died(self, status, wait)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    async def stop(self, grace: float) -> None:
        """Asks the process to end, and ends it after `grace` seconds."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), grace)
            except TimeoutError:
                self.kill()
                await self._process.wait()

    def kill(self) -> None:
        """Ends the process and what it started, now."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def last_line(self) -> str:
        """The last line of its log: why it died, most often."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    async def _run(self) -> int:
        with self.log.open("ab") as output:
            self._process = await _spawn(self._command, output)
        self.pid = self._process.pid
        if self._stopping.is_set():  # asked to stop while it was being started
            self._signal(signal.SIGTERM)
        return await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


async def _spawn(command: Sequence[str], output: IO[bytes]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
    )


def _die_with(supervisor: int) -> Callable[[], None]:
    libc = ctypes.CDLL(None)

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # it died before the kernel was asked
            os._exit(1)

    return arrange
