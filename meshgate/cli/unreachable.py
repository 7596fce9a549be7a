"""Why the gateway could not be reached: what gRPC said, as one sentence with a remedy."""

from __future__ import annotations

import re
from typing import Final

from meshgate.cli.failures import UsageError

_TARGET: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})", re.ASCII)
_SCHEMES: Final = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:")
_MAX_PORT: Final = 65_535
_SHAPE: Final = "--target: host:port is required, such as 127.0.0.1:8443"

_SAID: Final[tuple[tuple[str, str], ...]] = (
    (r"Domain name not found|address lookup failed|Name or service", "there is no such host as {target}"),
    (
        r"ostname Verification|not in peer certificate|Peer name",
        "the certificate of {target} is for another host: {gateway}",
    ),
    (r"CERTIFICATE_VERIFY_FAILED", "{target} has no certificate of the CA that --ca names for it"),
    (
        r"WRONG_VERSION_NUMBER|HTTP_REQUEST|Tls handshake failed",
        "{target} does not speak TLS as a gateway does: {gateway}",
    ),
    (r"Socket closed|Connection reset|CERTIFICATE_REQUIRED", "{target} closed the connection: {gateway}"),
    (r"No such file or directory", "there is no socket at {target}; is `make up` running?"),
    (r"", "{target} can't be reached; is `make up` running?"),
)
_GATEWAY: Final = "is it the gateway's port, and not a service's?"


def check(target: str) -> str:
    """`target`, which gRPC can make something of. Raises UsageError for a URL, a port that is missing, and the like."""
    if target.startswith(_SCHEMES):
        return target
    scheme, slashes, rest = target.partition("://")
    if slashes:
        raise UsageError(f"--target: leave out {scheme}://, {_SHAPE.partition(': ')[2]}" if rest else _SHAPE)
    found = _TARGET.fullmatch(target)
    if found is None or not 0 < int(found["port"]) <= _MAX_PORT:
        raise UsageError(_SHAPE)
    return target


def sentence(said: str, target: str) -> str:
    """What happened, where gRPC `said` so of an attempt to connect to `target`."""
    meant = next(sentence for pattern, sentence in _SAID if re.search(pattern, said))
    return meant.format(target=target, gateway=_GATEWAY)
