"""Models in a process beside this one."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final

from prometheus_client import ProcessCollector
from prometheus_client.registry import Collector

from meshgate.runtime.config import ConfigError
from meshgate.runtime.logs import stderr_capture
from services.batching import error_kinds
from services.batching.error_kinds import Fault
from services.model_process.host import Host, HostError
from services.model_process.messages import Done, Drop, Failed, Load, Refused, Reply, Run

_log = logging.getLogger(__name__)

_END_SECONDS: Final = 5.0
_ALL_THREADS: Final = 2
"""With a process's number, the clock that clock_getcpuclockid(3) makes of it on Linux."""


class SubprocessHost(Host):
    """Implements Host. The other process ends with this one, however this one ends."""

    def __init__(self, name: str, threads: int = 0, batches: int = 1) -> None:
        """`name` is the service's, for the log; `threads` are what models have on a CPU, 0 for one a core; so many
        `batches` can run side by side, more wait.
        """
        self._name = name
        self._threads = threads
        self._batches = batches
        self._runs: queue.LifoQueue[Connection[Any, Any]] = queue.LifoQueue()
        """Those on which nothing runs; a thread of the other process listens to each."""
        self._dropped: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._loading = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def start(self, died: Callable[[], object]) -> None:
        """See Host. On the main thread: the kernel ends the process with the thread that started it."""
        self._loads, loads = Pipe()
        pipes = [Pipe() for _ in range(self._batches)]
        theirs = [loads, *(other for _, other in pipes)]
        numbers = [other.fileno() for other in theirs]
        command = (sys.executable, "-m", "services.model_process", self._name, *map(str, numbers))
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)} if self._threads else None
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command, pass_fds=numbers, env=environment, process_group=0, stderr=stderr_capture.real()
        )
        for other in theirs:
            other.close()
        for mine, _ in pipes:
            self._runs.put(mine)
        self._watching = threading.Thread(target=self._watch, args=(self._process, died), name="host", daemon=True)
        self._watching.start()
        threading.Thread(target=self._drop, name="drops", daemon=True).start()

    def load(self, function: str, *args: Any) -> _Far:
        """See Host."""
        with self._loading:
            number, facts = _asked(self._loads, Load(function, args))
        return _Far(self, number, facts)

    def run(self, number: int, batch: Any) -> Any:
        """For what was loaded."""
        connection = self._runs.get()
        try:
            return _asked(connection, Run(number, batch))
        finally:
            self._runs.put(connection)

    def classify(self, error: BaseException) -> Fault:
        """See Host."""
        return error.fault if isinstance(error, HostError) else error_kinds.classify(error)

    def cpu_seconds(self) -> float:
        """See Host. 0 where nothing runs, and where the kernel can't tell."""
        if self._process is None or sys.platform != "linux":
            return 0.0
        try:
            return time.clock_gettime((~self._process.pid << 3) | _ALL_THREADS)
        except OSError:
            return 0.0

    @property
    def collectors(self) -> Sequence[Collector]:
        """See Host."""
        return (ProcessCollector("meshgate_models", self._pid, registry=None),)

    def _pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def forget(self, number: int) -> None:
        """For what was loaded, from wherever the garbage collector runs: so nothing is waited for here."""
        self._dropped.put(number)

    def stop(self) -> None:
        """See Host."""
        if self._process is None:
            return
        self._stopping = True
        self._dropped.put(None)
        self._process.kill()  # it holds nothing that is not held here
        self._watching.join(_END_SECONDS)

    def _watch(self, process: subprocess.Popen[bytes], died: Callable[[], object]) -> None:
        status = process.wait()
        if not self._stopping:
            _log.error("the process of the models ended", extra={"status": status})
            died()

    def _drop(self) -> None:
        while (number := self._dropped.get()) is not None:
            try:
                with self._loading:
                    _asked(self._loads, Drop(number))
            except HostError:
                return


class _Far:
    """Implements Hosted."""

    def __init__(self, host: SubprocessHost, number: int, facts: Any) -> None:
        self.facts = facts
        self._host = host
        self._number = number
        weakref.finalize(self, host.forget, number).atexit = False

    def run(self, batch: Any) -> Any:
        """See Hosted."""
        return self._host.run(self._number, batch)


def _asked(connection: Connection[Any, Any], message: Load | Run | Drop) -> Any:
    """The answer. Raises HostError, and ConfigError."""
    try:
        connection.send(message)
        reply: Reply = connection.recv()
    except (EOFError, OSError) as error:
        raise HostError(Fault.MODEL) from error
    match reply:
        case Done(value):
            return value
        case Refused(text):
            raise ConfigError(text)
        case Failed(fault):
            raise HostError(fault)
