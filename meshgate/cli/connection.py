"""How the command reaches the gateway, and as whom. Without flags: as `make up` left things."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from meshgate.cli.failures import UsageError

if TYPE_CHECKING:
    import grpc

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
        """An open channel. Raises UsageError for a target that is none, ConfigError where there is no CA or no token,
        Unauthenticated for a token that is none.
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # before it is imported: what went wrong, we say ourselves
        from meshgate import client
        from meshgate.client import unreachable

        if fault := unreachable.fault(self.target):
            raise UsageError(f"--target: {fault}")
        return client.connect(self.target, ca=self._ca(), token=self._token(), sealed=sealed)

    def _ca(self) -> bytes:
        from meshgate.client import environment
        from meshgate.runtime import config

        path = self.ca or config.home() / "certs" / "ca.pem"
        if not path.is_file():
            raise config.ConfigError(f"{path}: no such CA; is `make up` running, or is MESHGATE_HOME another?")
        return environment.ca_file(path).read_bytes()

    def _token(self) -> str | Path | Callable[[], str]:
        from meshgate.client import environment

        environment.refuse_empty({name: value for name, value in os.environ.items() if self._counts(name)})
        return self.token or environment.token_file(self.token_file) or _development_token()

    def _counts(self, name: str) -> bool:
        """Whether a variable says anything: a flag goes before what names the token in the environment."""
        given = {"MESHGATE_TOKEN": self.token, "MESHGATE_TOKEN_FILE": self.token_file}
        return name not in given or given[name] is not None or not any(given.values())


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
