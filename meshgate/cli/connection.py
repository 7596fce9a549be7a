"""How the command reaches the gateway, and as whom. Without flags: as `make up` left things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from meshgate.runtime import config

if TYPE_CHECKING:
    import grpc

TOKEN_SOURCES = "meshgate.token_sources"  # noqa: S105 - a name, not a secret


@dataclass(frozen=True)
class Connection:
    """The flags before the command."""

    target: str
    ca: Path | None
    token: str | None
    token_file: Path | None
    deadline: float

    def channel(self, *, sealed: bool = False) -> grpc.Channel:
        """An open channel. Raises OSError for a CA that is not there, ConfigError where there is no token."""
        from meshgate import client

        ca = self.ca or config.home() / "certs" / "ca.pem"
        if not ca.is_file():
            raise config.ConfigError(f"{ca}: no such CA; is `make up` running, or is MESHGATE_HOME another?")
        return client.connect(self.target, ca=ca, token=self._token(), sealed=sealed)

    def _token(self) -> str | Path | Callable[[], str]:
        if self.token:
            return self.token
        if self.token_file is not None:
            return self.token_file
        home = config.home()
        if (home / "keys" / "issuer-key.pem").is_file():
            for entry in entry_points(group=TOKEN_SOURCES):
                mint = entry.load()
                return lambda: str(mint(home))
        raise config.ConfigError("no token: give --token-file or MESHGATE_TOKEN, or run `make up`")
