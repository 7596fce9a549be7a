"""The processes of a Layout, run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Final

from rich.console import Console

import certs
from meshgate.runtime import process
from meshgate.runtime.child.child import Child
from meshgate.runtime.config import ConfigError
from meshgate.services import GATEWAY, SERVICES
from meshgate.supervisor import health_watch
from meshgate.supervisor.board import Board, State
from meshgate.supervisor.console import MeshConsole
from meshgate.supervisor.paths import PORTS, STORE, Layout, service_of

GRACE_SECONDS: Final = 25.0
_READING_SECONDS: Final = 5.0
"""From the first part whose configuration can't be used to the end of the mesh, at most."""
_RENEW_SECONDS: Final = 3600.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RENOUNCED: Final = (signal.SIGHUP, signal.SIG_IGN)
"""What nohup sets: a closed terminal is then no reason to stop."""


class Mesh:
    """Starts, watches, restarts and stops. Is the Observer of its children."""

    def __init__(self, layout: Layout, console: Console) -> None:
        self._layout = layout
        self._board = Board(layout.parts, time.monotonic)
        self._screen = MeshConsole(console, self._board)
        self._served: set[str] = set()
        self._refused: dict[str, str] = {}
        self._news = asyncio.Event()
        self._leaving = False
        self.children = {name: Child(name, layout.command(name), layout.log(name), self) for name in self._board.parts}
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGINT, SIGTERM or SIGHUP, and then leaves no process behind. A second signal does not wait.

        Raises ConfigError where a part can't use its configuration: starting it again would not help.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if (number, signal.getsignal(number)) != _RENOUNCED:
                loop.add_signal_handler(number, self._asked)
        tasks = [asyncio.create_task(work) for work in self._work()]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await self._stop(tasks)
        if self._refused:
            raise ConfigError("; ".join(f"{name}: {why}" for name, why in self._refused.items()))

    def started(self, child: Child) -> None:
        """A process runs."""
        self._board.started(child.name)

    def died(self, child: Child, status: int, wait: float) -> None:
        """A process ended unasked. One that has never served and can't use its configuration ends the mesh."""
        if status == process.BAD_CONFIG and child.name not in self._served:
            self._refused[child.name] = child.refusal()
            self._news.set()
            self._stopping.set()
            return
        self._board.died(child.name, wait)
        self._screen.died(child.name, status, wait, child.last_line())

    def _work(self) -> Iterable[Coroutine[Any, Any, object]]:
        yield self._stopping.wait()
        yield self._announce()
        yield self._renew()
        for name, child in self.children.items():
            yield child.supervise()
            yield self._follow(name)

    def _asked(self) -> None:
        if self._stopping.is_set():
            for child in self.children.values():
                child.kill()
        self._stopping.set()

    async def _stop(self, tasks: list[asyncio.Task[object]]) -> None:
        if self._refused:
            await self._others_started()
        self._leaving = True
        self._screen.say("stopping")
        # The gateway first: what it has in hand still needs the services.
        await self.children[GATEWAY].stop(GRACE_SECONDS)
        await asyncio.gather(*(child.stop(GRACE_SECONDS) for child in self.children.values()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._screen.say("stopped")

    async def _others_started(self) -> None:
        """Gives the other parts a moment to read their configuration, so that all that is wrong is told together."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READING_SECONDS):
                while any(
                    part.state is State.STARTING for name, part in self._board.parts.items() if self._unread(name)
                ):
                    self._news.clear()
                    await self._news.wait()

    def _unread(self, name: str) -> bool:
        """Whether a part has a configuration and has not refused it."""
        return name != STORE and name not in self._refused

    async def _follow(self, name: str) -> None:
        """Keeps the board up to date. The gateway serves once it has reached every service."""
        if name == STORE:
            async for state in health_watch.store_states(self._layout.store or self._layout.home):
                self._heard(name, state)
            return
        names = ("", *(service.full_name for service in SERVICES.values())) if name == GATEWAY else ("",)
        heard: dict[str, State] = dict.fromkeys(names, State.STARTING)

        async def follow(service: str) -> None:
            async for state in health_watch.states(
                service_of(name), self._layout.target(name), service, self._layout.home
            ):
                heard[service] = state
                self._heard(name, together(heard))

        await asyncio.gather(*map(follow, names))

    def _heard(self, name: str, state: State) -> None:
        if self._leaving:
            return  # that they stop serving now is no news
        self._news.set()
        if state is State.SERVING:
            self._served.add(name)
        if self._board.heard(name, state) and state is not State.STARTING:
            self._screen.changed(name)
        if self._board.ready:
            self._ready.set()

    async def _announce(self) -> None:
        self._screen.starting(self._layout.home / "logs", {name: self._layout.where(name) for name in self._extra()})
        with self._screen.loading():
            await self._ready.wait()
        self._screen.ready(self._layout.target(GATEWAY), self._layout.home)
        await self._stopping.wait()

    def _extra(self) -> list[str]:
        """The parts that are there because they were asked for: their places are nowhere in the documentation."""
        return [name for name in self._layout.parts if name not in PORTS]

    async def _renew(self) -> None:
        """Keeps certificates good for as long as the mesh runs; the processes take up new ones by themselves."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            with contextlib.suppress(OSError):  # a full disk: there are days left, and another attempt within the hour
                await asyncio.to_thread(certs.ensure, self._layout.home)


def together(states: Mapping[str, State]) -> State:
    """What a process does, given what it says of each of its services: the least of them."""
    for state in (State.STARTING, State.LOADING):
        if state in states.values():
            return state
    return State.SERVING
