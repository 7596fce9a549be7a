"""From the flags of `meshgate up` to a Layout: which replicas there are, and a port for each part."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from meshgate.runtime.config import ConfigError
from meshgate.services import GATEWAY, SERVICES
from meshgate.supervisor import ports, valkey
from meshgate.supervisor.paths import HOST, PORTS, Layout

MAX_REPLICAS: Final = 8
_STEP: Final = 10
"""From the port of a replica to that of the next, or to the one after where that is taken."""


def plan(
    home: Path,
    configs: Path,
    *,
    given: Mapping[str, int | None],
    offset: int = 0,
    replicas: Iterable[str] = (),
    workers: int | None = None,
) -> Layout:
    """The layout of a mesh. `given` are ports by part, None where none was chosen: then `offset` is added to the usual.

    Raises ConfigError.
    """
    first = {part: given.get(part) or usual + offset for part, usual in PORTS.items()}
    chosen = _with_replicas(first, counted(replicas))
    read = {part: _read(configs / f"{part}.toml") for part in PORTS}
    own_store = (workers or 1) > 1 and "store" not in read[GATEWAY]
    return Layout(
        home,
        configs,
        chosen,
        metrics=_metrics(chosen, read, offset),
        workers=workers,
        store=valkey.socket_path(home) if own_store else None,
    )


def counted(given: Iterable[str]) -> Mapping[str, int]:
    """`generation=2` and the like, several of them with commas between, as numbers. Raises ConfigError."""
    found = {}
    for item in (part for text in given for part in text.split(",")):
        name, _, number = item.strip().partition("=")
        if name not in SERVICES or not number.isascii() or not number.isdigit() or not 1 <= int(number) <= MAX_REPLICAS:
            raise ConfigError(
                f"--replicas: {item.strip()!r} is not a service and its number of replicas: {' or '.join(SERVICES)}, "
                f"=, and a number from 1 to {MAX_REPLICAS}, as in generation=2"
            )
        found[name] = int(number)
    return found


def _with_replicas(first: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    made: dict[str, int] = {}
    for part, port in first.items():
        made[part] = port
        for number in range(2, counts.get(part, 1) + 1):
            made[f"{part}-{number}"] = _next_free(port, {*first.values(), *made.values()})
    return made


def _next_free(port: int, used: set[int]) -> int:
    for candidate in range(port + _STEP, ports.MAX_PORT, _STEP):
        if candidate not in used and ports.free(HOST, candidate):
            return candidate
    raise ConfigError(f"--replicas: no port above {port} is free")


def _read(path: Path) -> Mapping[str, Any]:
    """A configuration as it is written; nothing where it can't be read, which its process then says best."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _metrics(
    chosen: Mapping[str, int], read: Mapping[str, Mapping[str, Any]], offset: int
) -> dict[str, tuple[str, int]]:
    """Where each part tells its metrics: as configured, moved by `offset`, and by a step for each further replica."""
    found = {}
    for part in chosen:
        service, _, number = part.partition("-")
        section = read[service].get("metrics")
        host, port = _address(section.get("listen") if isinstance(section, Mapping) else None)
        if port:
            found[part] = (host, port + offset + _STEP * (int(number or 1) - 1))
    return found


def _address(listen: object) -> tuple[str, int]:
    host, _, port = str(listen or "").rpartition(":")
    usable = host and port.isascii() and port.isdigit()
    return (host.removeprefix("[").removesuffix("]"), int(port)) if usable else ("", 0)
