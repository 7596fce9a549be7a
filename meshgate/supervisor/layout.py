"""What `meshgate up` runs: four processes, their ports, commands and files."""

from __future__ import annotations

import errno
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshgate.runtime.config import ConfigError

GATEWAY: Final = "gateway"
SERVICES: Final = {
    "generation": "meshgate.v1.GenerationService",
    "embedding": "meshgate.v1.EmbeddingService",
    "classification": "meshgate.v1.ClassificationService",
}
"""Service process to the gRPC service it runs."""
PORTS: Final[Mapping[str, int]] = {GATEWAY: 8443, "generation": 8451, "embedding": 8452, "classification": 8453}
_HOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Layout:
    """Where everything is."""

    home: Path
    configs: Path
    ports: Mapping[str, int]

    def target(self, name: str) -> str:
        """host:port of a process."""
        return f"{_HOST}:{self.ports[name]}"

    def command(self, name: str) -> list[str]:
        """How a process is started."""
        module = name if name == GATEWAY else f"services.{name}"
        config = str(self.configs / f"{name}.toml")
        command = [sys.executable, "-m", module, "--config", config, "--listen", self.target(name)]
        if name == GATEWAY:
            for service in SERVICES:
                command += ["--backend", f"{service}={self.target(service)}"]
        return command

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.home / "logs" / f"{name}.log"

    def check(self) -> None:
        """Raises ConfigError for a configuration that is not there or a port that can't be had."""
        for name, port in self.ports.items():
            if not (self.configs / f"{name}.toml").is_file():
                raise ConfigError(f"{self.configs / name}.toml: no such file; --config-dir says where they are")
            _check_port(name, port)
        for port, count in Counter(self.ports.values()).items():
            if count > 1:
                raise ConfigError(f"port {port} is given to {count} parts; each needs one of its own")


def _check_port(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            why = "is taken; stop what uses it, or choose another"
            if error.errno != errno.EADDRINUSE:
                why = f"can't be used ({error.strerror}); choose another"
            raise ConfigError(f"port {port} of {name} {why}: --{name}-port") from None


def default_configs() -> Path:
    """deploy/config of the source tree that this package is part of."""
    return Path(__file__).resolve().parent.parent.parent / "deploy" / "config"
