"""`meshgate up`: what has to be there is made, and the mesh runs."""

from __future__ import annotations

import asyncio

import certs
from meshgate.supervisor.bootstrap import bootstrap
from meshgate.supervisor.layout import Layout
from meshgate.supervisor.lock import alone
from meshgate.supervisor.mesh import Mesh
from meshgate.supervisor.screen import Steadfast


def up(layout: Layout) -> None:
    """Runs until a signal. Raises ConfigError or OSError for what keeps it from starting."""
    with alone(layout.home):
        layout.check()
        _prepare(layout)
        asyncio.run(_run(layout))


def _prepare(layout: Layout) -> None:
    certs.ensure(layout.home)
    bootstrap(layout.home)
    for name in layout.ports:
        log = layout.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))


async def _run(layout: Layout) -> None:
    await Mesh(layout, Steadfast()).run()
