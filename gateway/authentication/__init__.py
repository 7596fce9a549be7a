"""Authentication: a bearer token (RFC 6750) becomes a Principal, or the call ends here.

`Authenticator.authenticate` is the whole interface. Behind it `header.py` reads the parts of a token that may be read
before the signature is checked, `verification.py` makes the checks in order, and `claims.py` interprets verified
claims. The rules follow RFC 8725 (JWT best current practices): the algorithm comes from configuration and key, never
from the token alone, and no header parameter can name a key.

Keys (`keys/key_source.py`, `keys/keyset.py`, `keys/https_get.py`) and revocations (`revocation/revocation_source.py`,
`revocation/redis_stream.py`, `revocation/revocation_list.py`) are kept fresh in the background between
`Authenticator.start` and `stop`. A call never waits for either.
"""

from __future__ import annotations

from gateway.authentication.authenticator import STEPS, Authenticator, TokenReport
from gateway.authentication.certificate import thumbprint
from gateway.authentication.config import IssuerConfig, RevocationConfig
from gateway.authentication.revocation.revocation_list import Revoked
from gateway.authentication.revocation.revocation_source import revocations_of
from gateway.authentication.token_errors import REVOKED
from meshgate.runtime.refresher import SourceState

__all__ = [
    "REVOKED",
    "STEPS",
    "Authenticator",
    "IssuerConfig",
    "RevocationConfig",
    "Revoked",
    "SourceState",
    "TokenReport",
    "revocations_of",
    "thumbprint",
]
