"""Several gateway processes on one port, because one Python process has one core's worth of Python.

The supervisor holds the port, starts `python -m gateway --worker N` for each and handles no call itself. A worker that
dies loses the calls it had and is started again, after a pause that grows; the others go on. Workers share
limits and other common state through the store; each has an audit log of its own.

Workers are started by exec and never forked: gRPC does not survive a fork.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from typing import Final

from gateway.workers.shared_port import SharedPort
from meshgate.runtime import process
from meshgate.runtime.child.child import Child

_log = logging.getLogger(__name__)

_LEAVE_SECONDS: Final = 4.0
"""Seconds beyond its drain in which a worker closes its audit log."""

Command = Callable[[int, str], Sequence[str]]


class WorkerSupervisor:
    """The supervisor. Is the Observer of its workers."""

    def __init__(self, count: int, port: SharedPort, drain_seconds: float, command: Command) -> None:
        """`command(number, listen)` is how worker `number`, from 0, is started."""
        self._port = port
        self._grace = drain_seconds + _LEAVE_SECONDS
        self._children = {
            str(number): Child(str(number), command(number, port.listen), None, self) for number in range(count)
        }
        self._young = set(self._children)
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT and then drains all workers at once; a second signal does not wait.

        Returns the exit status: that of a worker whose configuration can't be used, else 0.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked)
        supervised = [asyncio.create_task(child.supervise()) for child in self._children.values()]
        waiting = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((waiting, *supervised), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await asyncio.gather(*(child.stop(self._grace) for child in self._children.values()))
            waiting.cancel()
            self._port.close()
        await asyncio.gather(*supervised)  # an OSError of one that could not be started at all is ours
        return self._status

    def started(self, child: Child) -> None:
        """A worker's process runs."""
        _log.info("worker", extra={"worker": child.name, "worker_pid": child.pid, "listen": self._port.listen})

    def died(self, child: Child, status: int, wait: float) -> None:
        """A worker ended unasked. One that can't use its configuration from the start never will."""
        if status == process.BAD_CONFIG and child.name in self._young:
            self._status = status
            self._stopping.set()
            return
        self._young.discard(child.name)
        _log.error("worker died", extra={"worker": child.name, "status": status, "again_seconds": round(wait, 1)})

    def _asked(self) -> None:
        if self._stopping.is_set():
            for child in self._children.values():
                child.kill()
        self._stopping.set()
