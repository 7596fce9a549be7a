"""Authentication: a bearer token (RFC 6750) becomes a Principal, or the call ends here.

`Authenticator.authenticate` is the whole seam. Behind it: `header.py` reads what may be read before the signature is
checked, `keyset.py` holds the issuers' public keys, `claims.py` decides what verified claims mean. The rules follow RFC
8725 (JWT best current practices): the algorithm comes from configuration and key, never from the token alone, and no
header parameter can name a key.
"""

from __future__ import annotations

from gateway.authentication.authenticator import Authenticator
from gateway.authentication.config import IssuerConfig

__all__ = ["Authenticator", "IssuerConfig"]
