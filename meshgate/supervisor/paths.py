"""What `meshgate up` runs: the processes, their ports, commands and files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from meshgate.runtime.config import ConfigError
from meshgate.services import GATEWAY, GATEWAY_PORT, SERVICES
from meshgate.supervisor import ports, valkey
from meshgate.supervisor.ports import Port

STORE: Final = "store"
PORTS: Final[Mapping[str, int]] = {GATEWAY: GATEWAY_PORT, **{name: service.port for name, service in SERVICES.items()}}
HOST: Final = "127.0.0.1"


def service_of(part: str) -> str:
    """The service of a part: its replicas are `generation`, `generation-2`, `generation-3` and so on."""
    return part.partition("-")[0]


@dataclass(frozen=True)
class Layout:
    """Where everything is."""

    home: Path
    configs: Path
    ports: Mapping[str, int]
    """Of the gateway and of every replica of a service, by the part's name."""
    metrics: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Host and port of the parts that Prometheus finds somewhere."""
    workers: int | None = None
    """Of the gateway; None is what its configuration says."""
    store: Path | None = None
    """The socket of a store that the mesh runs for itself."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all processes, the gateway last."""
        services = (name for name in self.ports if name != GATEWAY)
        return (*([STORE] if self.store else []), *services, GATEWAY)

    def target(self, name: str) -> str:
        """host:port of a process."""
        return f"{HOST}:{self.ports[name]}"

    def where(self, name: str) -> str:
        """Where a process listens, for people."""
        return str(self.store) if name == STORE else self.target(name)

    def config(self, name: str) -> Path:
        """The configuration of a part; replicas share one."""
        return self.configs / f"{service_of(name)}.toml"

    def command(self, name: str) -> list[str]:
        """How a process is started. Raises ConfigError for a store that is not installed."""
        if name == STORE:
            assert self.store is not None  # noqa: S101 - else it is no part
            return valkey.command(self.store, self.home / "store")
        module = name if name == GATEWAY else f"services.{service_of(name)}"
        command = [sys.executable, "-m", module, "--config", str(self.config(name)), "--listen", self.target(name)]
        if name in self.metrics:
            host, port = self.metrics[name]
            command += ["--metrics", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]
        return [*command, *self._shared()] if name == GATEWAY else command

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.home / "logs" / f"{name}.log"

    def check(self) -> None:
        """Raises ConfigError for all configurations that are not there, else for all ports that can't be had."""
        absent = dict.fromkeys(str(self.config(name)) for name in self.ports if not self.config(name).is_file())
        if absent:
            raise ConfigError(f"{', '.join(absent)}: no such file; --config-dir says where they are")
        ports.check(list(self._places()))

    def backends(self) -> dict[str, str]:
        """Where the gateway finds each service: one address, or those of its replicas."""
        places = {
            service: [self.target(name) for name in self.ports if service_of(name) == service] for service in SERVICES
        }
        return {name: each[0] if len(each) == 1 else f"ipv4:{','.join(each)}" for name, each in places.items()}

    def store_url(self) -> str | None:
        """Where the gateway finds the store that the mesh runs for itself."""
        return f"unix://{quote(str(self.store))}" if self.store else None

    def _shared(self) -> list[str]:
        """What the gateway alone is told: where its backends and its store are."""
        told = [part for name, where in self.backends().items() for part in ("--backend", f"{name}={where}")]
        told += ["--workers", str(self.workers)] if self.workers is not None else []
        url = self.store_url()
        return [*told, "--store", url] if url else told

    def _places(self) -> Iterable[Port]:
        for name, port in self.ports.items():
            yield Port(name, HOST, port, f"--{service_of(name)}-port")
        for name, (host, port) in self.metrics.items():
            for worker in range((self.workers or 1) if name == GATEWAY else 1):
                yield Port(f"{name}'s metrics", host, port + worker, f"metrics.listen in {self.config(name)}")
