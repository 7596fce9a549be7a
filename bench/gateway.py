"""A gateway of the shipped configuration, with limits that are counted but never reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench import process

_SHIPPED: Final = Path(__file__).parent.parent / "deploy" / "config" / "gateway.toml"
_NEVER_REACHED: Final = 1_000_000
_RATES: Final = re.compile(r"^(requests_per_second|burst) = \d+", re.MULTILINE)
_TOKENS: Final = re.compile(r"^# (tokens_per_minute) = [\d_]+", re.MULTILINE)
_BACKEND: Final = re.compile(r"^(\[backends\.\w+\])$", re.MULTILINE)
_SERVER_NAME: Final = 'server_name = "embedding.meshgate"'
"""The backend of `make bench-gateway` is one process that is all three services, with the certificate of one."""
_WORKERS: Final = re.compile(r"^workers = \d+", re.MULTILINE)


def configure(home: Path, name: str, *, workers: int = 1, after: str = "", one_backend: bool = True) -> Path:
    """Writes its configuration, with an audit log of its own and `after` at the end; returns the file. With
    `one_backend` one process is all services; otherwise each service has its own certificate, as shipped.
    """
    shipped = _RATES.sub(rf"\1 = {_NEVER_REACHED}", _SHIPPED.read_text())
    shipped = _TOKENS.sub(rf"\1 = {1000 * _NEVER_REACHED}", shipped)
    shipped = _WORKERS.sub(f"workers = {workers}", shipped)
    shipped = _BACKEND.sub(rf"\1\n{_SERVER_NAME}", shipped) if one_backend else shipped
    config = home / f"{name}.toml"
    config.write_text(shipped.replace("${MESHGATE_HOME}/audit", f"${{MESHGATE_HOME}}/audit-{name}") + after)
    return config


def command(config: Path, port: int, backends: Mapping[str, int]) -> tuple[str, ...]:
    """How it is started; `backends` are service names to ports of this machine."""
    targets = (flag for name, at in backends.items() for flag in ("--backend", f"{name}=127.0.0.1:{at}"))
    return process.python("gateway", "--config", str(config), "--listen", f"127.0.0.1:{port}", *targets)
