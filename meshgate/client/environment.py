"""The environment of a client: the variables by which the CLI, the SDK and every example find their mesh."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

from meshgate import state
from meshgate.client import unreachable

if TYPE_CHECKING:
    from meshgate.runtime.config import ConfigError

TARGET: Final = "MESHGATE_TARGET"
CA: Final = "MESHGATE_CA"
TOKEN: Final = "MESHGATE_TOKEN"  # noqa: S105 - a name, not a secret
TOKEN_FILE: Final = "MESHGATE_TOKEN_FILE"  # noqa: S105

HOME: Final = "MESHGATE_HOME"

_JWT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", re.ASCII)
_TOKEN_BYTES: Final = 8192
_PEM: Final = b"-----BEGIN CERTIFICATE-----"


class Settings(TypedDict):
    """What `connect` needs, by the names of its parameters."""

    target: str
    ca: Path | None
    token: str | Path


def settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings for `connect` from the environment.

    MESHGATE_TARGET is the gateway; where it is not set, that of the mesh that `meshgate up` started in the state
    directory, else 127.0.0.1:8443. MESHGATE_CA is the file of the CA to believe;
    without it, certs/ca.pem of the state directory (MESHGATE_HOME, else .meshgate here), and without that the system's.
    MESHGATE_TOKEN is the token, or MESHGATE_TOKEN_FILE the file that holds it, read again when it changes.

    Raises ConfigError for a variable that is empty, a target that is none, a file that holds something else, and where
    there is no token.
    """
    refuse_empty(environment)
    token = environment.get(TOKEN) or token_file(environment.get(TOKEN_FILE))
    if not token:
        raise _wrong(f"no token: set {TOKEN}, or {TOKEN_FILE} to the file that holds one")
    target = environment.get(TARGET) or state.target(state.home())
    if fault := unreachable.fault(target):
        raise _wrong(f"{TARGET}: {fault}")
    return Settings(target=target, ca=_ca(environment), token=token)


def refuse_empty(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError for a variable that is set and empty, as `X=$(command that failed)` leaves it, and where both
    name a token.
    """
    for name in (TARGET, CA, TOKEN, TOKEN_FILE, HOME):
        if not environment.get(name, "set").strip():
            raise _wrong(f"{name} is empty: give it a value, or unset it")
    if environment.get(TOKEN) and environment.get(TOKEN_FILE):
        raise _wrong(f"{TOKEN} and {TOKEN_FILE} are both set: unset one of them")


def ca_file(path: Path) -> Path:
    """`path`, which holds a CA. Raises ConfigError where it does not."""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise _wrong(f"{path}: the CA can't be read: {error.strerror}") from error
    if _PEM not in found:
        raise _wrong(f"{path}: no certificate in it, PEM is required")
    return path


def token_file(path: str | Path | None) -> Path | None:
    """The file `path`, which holds a token; None for None. Raises ConfigError where it does not."""
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            found = file.read(_TOKEN_BYTES + 3).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise _wrong(f"{path}: the token can't be read: {error.strerror}") from error
    if _JWT.fullmatch(found) is None or len(found) > _TOKEN_BYTES:
        raise _wrong(f"{path}: no token in it: expected three base64url parts with dots between them, and no more")
    return Path(path)


def _ca(environment: Mapping[str, str]) -> Path | None:
    if CA in environment:
        return ca_file(Path(environment[CA]))
    found = state.home() / "certs" / "ca.pem"
    return found if found.is_file() else None


def _wrong(what: str) -> ConfigError:
    from meshgate.runtime.config import ConfigError  # slow to import, and most clients have nothing wrong

    return ConfigError(what)
