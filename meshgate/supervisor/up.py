"""`meshgate up`: what has to be there is made, and the mesh runs."""

from __future__ import annotations

import asyncio
import shutil

import certs
from meshgate import state
from meshgate.runtime.child import log_file
from meshgate.services import GATEWAY
from meshgate.supervisor.bootstrap import bootstrap
from meshgate.supervisor.console import KeptLine
from meshgate.supervisor.lock import exclusive
from meshgate.supervisor.mesh import Mesh
from meshgate.supervisor.paths import Layout


def up(layout: Layout) -> None:
    """Runs until a signal. Raises ConfigError or OSError for what keeps it from starting."""
    with exclusive(layout.home):
        layout.check()
        _prepare(layout)
        try:
            asyncio.run(_run(layout))
        finally:
            _clear(layout)


def _prepare(layout: Layout) -> None:
    certs.ensure(layout.home)
    bootstrap(layout.home)
    (layout.home / "logs").mkdir(parents=True, exist_ok=True)
    (layout.home / "logs").chmod(0o700)
    for name in layout.parts:
        log_file.rotate(layout.log(name))
    state.record(layout.home, _word_of(layout))


def _word_of(layout: Layout) -> state.Running:
    """What commands need to know of the mesh."""
    configs = str(layout.configs.absolute())
    return state.Running(layout.target(GATEWAY), configs, layout.backends(), layout.store_url() or "")


def _clear(layout: Layout) -> None:
    """Removes the directory of the store's socket where it is not in the state directory."""
    if layout.store is not None and layout.home not in layout.store.parents:
        shutil.rmtree(layout.store.parent, ignore_errors=True)


async def _run(layout: Layout) -> None:
    await Mesh(layout, KeptLine()).run()
