"""How the command reaches the gateway, and as whom. Without flags: as `make up` left things."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import grpc

_PEM: Final = b"-----BEGIN CERTIFICATE-----"
TOKEN_SOURCES: Final = "meshgate.token_sources"  # noqa: S105 - a name, not a secret
"""Entry points that make a token from a state directory: the development issuer, where the gateway is installed."""


@dataclass(frozen=True)
class Connection:
    """The flags before the command."""

    target: str
    ca: Path | None
    token: str | None
    token_file: Path | None
    deadline: float

    def channel(self, *, sealed: bool = False) -> grpc.Channel:
        """An open channel. Raises ConfigError where there is no CA or no token, Unauthenticated for a token that is
        none.
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before it is imported: what went wrong, we say ourselves
        from meshgate import client

        return client.connect(self.target, ca=self._ca(), token=self._token(), sealed=sealed)

    def _ca(self) -> bytes:
        from meshgate.runtime import config

        path = self.ca or config.home() / "certs" / "ca.pem"
        if not path.is_file():
            raise config.ConfigError(f"{path}: no such CA; is `make up` running, or is MESHGATE_HOME another?")
        found = path.read_bytes()
        if _PEM not in found:
            raise config.ConfigError(f"{path}: no certificate in it, PEM is required")
        return found

    def _token(self) -> str | Path | Callable[[], str]:
        if self.token:
            return self.token
        if self.token_file is not None:
            self.token_file.read_bytes()  # says now, and by name, if it can't be read
            return self.token_file
        return _development_token()


def _development_token() -> Callable[[], str]:
    from meshgate.runtime import config

    home = config.home()
    source = next(iter(entry_points(group=TOKEN_SOURCES)), None)
    key = home / "keys" / "issuer-key.pem"
    if source is None or not key.is_file():
        raise config.ConfigError(
            "no token: give --token-file or MESHGATE_TOKEN, or run `make up`; the development issuer's key would be "
            f"{key}, and --home or MESHGATE_HOME names another state directory"
        )
    try:
        mint: Any = source.load()
    except ImportError:
        raise config.ConfigError("no token: give one, or install the extra that mints one, meshgate[gateway]") from None
    return lambda: str(mint(home))
