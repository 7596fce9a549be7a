"""How long a process takes from its start until it serves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import NamedTuple

import certs
from bench import process
from bench.services.contenders import contender, mesh
from bench.services.contenders.contender import Start
from bench.services.contenders.place import Place


class Started(NamedTuple):
    """One start."""

    seconds: float
    resident: int
    """Bytes held once it serves."""


async def services(place: Place, rounds: int) -> dict[str, list[Started]]:
    """Both services, in a state directory that is new each time, and the second time in one that is not."""
    started: dict[str, list[Started]] = {}
    for number in range(rounds):
        for service in ("generation", "embedding"):
            home = place.home / f"start-{number}-{service}"
            certs.ensure(home)
            for temper in ("cold", "warm"):
                title = f"Meshgate, {service}, {temper}"
                started.setdefault(title, []).append(await _service(replace(place, home=home), service))
    return started


async def peers(place: Place, starts: Mapping[str, Start], rounds: int) -> dict[str, list[Started]]:
    """Peers, until each has answered its first call."""
    started: dict[str, list[Started]] = {}
    for _ in range(rounds):
        for each in starts:
            with ExitStack() as stack:
                within = place.within(stack)
                began = time.perf_counter()
                for item in await contender.start(within, starts, [each]):
                    seconds = time.perf_counter() - began
                    resident = process.resident_bytes(process.family(item.pids))
                    started.setdefault(f"{item.title}, to its first answer", []).append(Started(seconds, resident))
                    await item.runner.close()
    return started


async def _service(place: Place, service: str) -> Started:
    with ExitStack() as stack:
        within = place.within(stack)
        port, pid = mesh.start_service(within, service, service, {"model.device": f'"{place.device}"'})
        seconds = await mesh.serving(within, service, port, pid)
        return Started(seconds, process.resident_bytes(process.family([pid])))
