"""One process of the mesh: started, waited for, started again, and never left behind.

Each child is the leader of a session of its own. So Ctrl-C reaches the supervisor alone, which then stops the children
in order. leash.py ends the child when the supervisor could not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from meshgate.runtime.child import leash, log_file
from meshgate.runtime.child.backoff import Backoff
from meshgate.runtime.logs import stderr_capture

_TAIL_BYTES: Final = 8192
_KILLED_SECONDS: Final = 10.0
"""How long the kernel may take to end a killed process."""


class Observer(Protocol):
    """The observer of a child's start and end."""

    def started(self, child: Child) -> None:
        """Its process runs."""

    def died(self, child: Child, status: int, wait: float) -> None:
        """Its process ended unasked with `status` (minus the signal's number); the next starts in `wait` seconds."""


class Child:
    """A process under supervision."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path | None,
        observer: Observer,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log` gets what the process writes, as JSON lines. Without it the process writes where we do."""
        self.name = name
        self.log = log
        self.pid: int | None = None
        self._command = command
        self._observer = observer
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._begins_at = 0
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def supervise(self) -> None:
        """Keeps the process running until `stop`. Raises OSError when it can't be started at all."""
        self._idle.clear()
        try:
            while not self._stopping.is_set():
                await self._live()
        finally:
            self._idle.set()

    async def stop(self, grace: float) -> None:
        """Asks the process to end, and ends it after `grace` seconds. Returns when there is none."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._idle.wait(), grace)
        except TimeoutError:
            self.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _KILLED_SECONDS)

    def kill(self) -> None:
        """Ends the process and what it started, now."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def last_line(self) -> str:
        """The last line that the process wrote, blanks aside: why it died, most often."""
        return next(map(log_file.unwrapped, reversed(self._lines())), "")

    def refusal(self) -> str:
        """The configuration error that a process logged, in one line."""
        said = []
        for line in reversed(self._lines()):
            found = log_file.parsed(line)
            if found.get("level") != "error":
                break
            said.append(str(found.get("message", "")))
        return "; ".join(dict.fromkeys(reversed(said))) or self.last_line()

    def _lines(self) -> list[str]:
        """The last lines of its log, of this life alone."""
        if self.log is None:
            return []
        try:
            with self.log.open("rb") as file:
                file.seek(max(self._begins_at, self.log.stat().st_size - _TAIL_BYTES))
                lines = file.read(_TAIL_BYTES).decode(errors="replace").split("\n")
        except OSError:
            return []
        return [line.strip() for line in lines if line.strip()]

    async def _live(self) -> None:
        """One life, and the wait until the next."""
        started = self._clock()
        status = await self._run()
        if self._stopping.is_set():
            return
        wait = self._backoff.after(self._clock() - started, random.random())  # noqa: S311 - spreads load only
        self._observer.died(self, status, wait)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)

    async def _run(self) -> int:
        async with self._output() as output:
            self._process = process = await _spawn(self._command, output)
            self.pid = process.pid
            try:
                self._observer.started(self)
                if self._stopping.is_set():  # asked to stop while it was being started
                    self._signal(signal.SIGTERM)
                return await process.wait()
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it started, should it have left anything

    @contextlib.asynccontextmanager
    async def _output(self) -> AsyncIterator[int | None]:
        """Where a process writes: the end of a pipe to its log, read until everybody has closed it."""
        if self.log is None:
            yield None
            return
        log = log_file.LogFile(self.log, self.name)
        self._begins_at = self.log.stat().st_size
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", 0) as source, os.fdopen(writing, "wb", 0) as sink:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: log, source)
            try:
                yield sink.fileno()
            finally:
                sink.close()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(log.closed.wait(), _KILLED_SECONDS)
                transport.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


async def _spawn(command: Sequence[str], output: int | None) -> asyncio.subprocess.Process:
    # -I and -S: the leash needs no site-packages, and what the environment says of Python is for the command alone.
    leashed = (sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command)
    errors = stderr_capture.real() if output is None else output
    return await asyncio.create_subprocess_exec(
        *leashed, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
    )
