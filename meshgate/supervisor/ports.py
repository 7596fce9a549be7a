"""Whether the ports of a mesh can be had, told of all of them at once and before anything is started."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from meshgate.runtime.config import ConfigError

MAX_PORT: Final = 65_535
_OFFSETS: Final = range(100, 2000, 100)


@dataclass(frozen=True)
class Port:
    """A port of a part, and what chooses another."""

    part: str
    host: str
    port: int
    chosen_by: str


def check(places: Sequence[Port]) -> None:
    """Raises ConfigError, naming every port that is given twice, else every one that can't be bound."""
    for (_, port), count in Counter((place.host, place.port) for place in places).items():
        if count > 1:
            raise ConfigError(f"port {port} is given to {count} parts; each needs one of its own")
    found = [(place, why) for place in places if (why := _unusable(place))]
    if found:
        raise ConfigError(_told(found, places))


def free(host: str, port: int) -> bool:
    """Whether a port can be bound now."""
    return not _unusable(Port("", host, port, ""))


def _told(found: Sequence[tuple[Port, str]], places: Sequence[Port]) -> str:
    said = ", ".join(f"port {place.port} of {place.part} {why}" for place, why in found)
    flags = ", ".join(dict.fromkeys(place.chosen_by for place, _ in found))
    stop = "stop what uses it, or choose another" if len(found) == 1 else "stop what uses them, or choose others"
    offset = _free_offset(places)
    beside = f". A second mesh beside a first: --offset {offset} (make up ARGS='--offset {offset}')" if offset else ""
    return f"{said}; {stop}: {flags}{_with_make(found)}{beside}"


def _with_make(found: Sequence[tuple[Port, str]]) -> str:
    """How make is given the first flag that would help, if a flag would."""
    flag = next((place.chosen_by for place, _ in found if place.chosen_by.startswith("--")), None)
    return f" (make up ARGS='{flag} N')" if flag else ""


def _free_offset(places: Iterable[Port]) -> int | None:
    """How far all ports have to be moved to be free."""
    kept = list(places)
    for offset in _OFFSETS:
        moved = [replace(place, port=place.port + offset) for place in kept]
        if not any(map(_unusable, moved)):
            return offset
    return None


def _unusable(place: Port) -> str:
    """Why a port can't be bound; nothing where it can."""
    if not 0 < place.port <= MAX_PORT:
        return f"is none: ports are from 1 to {MAX_PORT:,}"
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((place.host, place.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is taken"
            return f"can't be used ({error.strerror})"
    return ""
