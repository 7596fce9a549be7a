"""Runs the mesh of a Layout until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Any, Final

from rich.console import Console
from rich.status import Status

import certs
from meshgate.runtime.config import ConfigError
from meshgate.supervisor import watch
from meshgate.supervisor.child import Child
from meshgate.supervisor.layout import GATEWAY, SERVICES, Layout

_GRACE_SECONDS: Final = 25.0
_NEXT: Final = """\
Try, from another terminal:
  meshgate generate "Gravity is" --max-tokens 20
  meshgate chat
  meshgate embed "你好，世界！"
  meshgate classify "I loved this film"
  meshgate audit tail
Ctrl-C stops everything."""


class Mesh:
    """Four processes and what is said of them."""

    def __init__(self, layout: Layout, console: Console) -> None:
        self._layout = layout
        self._console = console
        self._started = time.monotonic()
        self._children = {name: self._child(name) for name in (*SERVICES, GATEWAY)}
        self._waiting = {*SERVICES, GATEWAY}
        self._ready = asyncio.Event()
        self._spinner: Status | None = None

    def _child(self, name: str) -> Child:
        return Child(name, self._layout.command(name), self._layout.log(name), self._died)

    async def run(self) -> None:
        """Serves until SIGINT or SIGTERM, and then leaves no process behind. A second signal does not wait."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked, stopping)
        tasks = [asyncio.create_task(child.supervise()) for child in self._children.values()]
        tasks += [asyncio.create_task(self._follow(name)) for name in (*SERVICES, GATEWAY)]
        tasks.append(asyncio.create_task(self._announce()))
        ended = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait({ended, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    raise error
            await stopping.wait()
        finally:
            await self._stop([*tasks, ended])

    def _asked(self, stopping: asyncio.Event) -> None:
        if stopping.is_set():
            for child in self._children.values():
                child.kill()
        stopping.set()

    async def _stop(self, tasks: list[asyncio.Task[Any]]) -> None:
        self._say("stopping")
        # The gateway first: what it has in hand still needs the services.
        await self._children[GATEWAY].stop(_GRACE_SECONDS)
        await asyncio.gather(*(child.stop(_GRACE_SECONDS) for child in self._children.values()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._say("stopped")

    async def _follow(self, name: str) -> None:
        """Says when a process serves. The gateway serves once it has reached every service."""
        identity = watch.credentials(self._layout.home)
        names = [""] if name != GATEWAY else ["", *SERVICES.values()]
        serving: set[str] = set()

        async def follow(service: str) -> None:
            async for state in watch.states(self._layout.target(name), service, identity):
                (serving.add if state == watch.SERVING else serving.discard)(service)
                self._changed(name, len(serving) == len(names))

        await asyncio.gather(*(follow(service) for service in names))

    def _changed(self, name: str, serving: bool) -> None:
        if serving and name in self._waiting:
            self._waiting.discard(name)
            self._say(f"[green]{name}[/] serving after {time.monotonic() - self._started:.1f} s")
        elif not serving:
            self._waiting.add(name)
        if not self._waiting:
            self._ready.set()
        self._show()

    def _show(self) -> None:
        if self._spinner is not None:
            self._spinner.update(f"waiting for {', '.join(sorted(self._waiting))}")

    async def _announce(self) -> None:
        self._say(f"starting; logs are in {self._layout.home / 'logs'}")
        with self._console.status("starting") as self._spinner:
            self._show()
            await self._ready.wait()
        self._spinner = None
        self._say(f"[bold green]ready[/] on {self._layout.target(GATEWAY)}")
        self._console.print(_NEXT, markup=False, highlight=False)
        await asyncio.Event().wait()

    def _died(self, child: Child, status: int, wait: float) -> None:
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        self._say(f"[red]{child.name}[/] died ({how}), starting it again in {wait:.1f} s")
        if why := _message(child.last_line()):
            self._console.print(f"  {why}", markup=False, highlight=False)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def _message(line: str) -> str:
    """The message of a line of a JSON log; other lines as they are."""
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        return str(found.get("message", "")) if isinstance(found, dict) else line
    return line


def prepare(layout: Layout) -> None:
    """Makes certificates, keys and folders. Raises ConfigError or OSError."""
    (layout.home / "logs").mkdir(parents=True, exist_ok=True)
    certs.ensure(layout.home)
    for entry in entry_points(group="meshgate.bootstrap"):
        entry.load()(layout.home)
    for name in layout.ports:
        log = layout.log(name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))


@contextmanager
def alone(home: Path) -> Iterator[IO[str]]:
    """Holds the state directory for one mesh. Raises ConfigError when another has it."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"a mesh already runs in {home}; MESHGATE_HOME chooses another place") from None
        yield lock


def up(layout: Layout, console: Console) -> None:
    """`meshgate up`. Raises ConfigError or OSError for what keeps it from starting."""
    with alone(layout.home):
        layout.check()
        prepare(layout)
        asyncio.run(_run(layout, console))


async def _run(layout: Layout, console: Console) -> None:
    await Mesh(layout, console).run()
