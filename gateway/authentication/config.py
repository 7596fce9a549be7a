"""Which tokens are believed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from meshgate.runtime.config import Strict

Algorithm = Literal["ES256", "EdDSA", "RS256", "PS256"]
"""All that can be configured: no HMAC, where verifying is also signing, and never `none`."""


class IssuerConfig(Strict):
    """One trusted issuer, for one audience. A token must fit all of one entry."""

    issuer: str = Field(min_length=1, max_length=2048)
    """The exact `iss` claim."""
    audience: str = Field(min_length=1, max_length=2048)
    """What `aud` must be or contain."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("ES256",)
    """Which signatures are believed."""
    jwks: Path
    """The issuer's public keys: a JWK Set file (RFC 7517). It is read again when it changes."""
    tenant_claim: str = Field("tenant", min_length=1, max_length=256)
    """The claim that names the tenant."""
    leeway_seconds: float = Field(30.0, ge=0, le=300)
    """How far clocks may differ."""
