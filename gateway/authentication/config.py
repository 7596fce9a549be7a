"""Which tokens are believed, and where the list of those that no longer are is kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gateway.names import TenantName, VisibleText
from meshgate.runtime.config import Strict

Algorithm = Literal["ES256", "EdDSA", "RS256", "PS256"]
"""All that can be configured: no HMAC, where verifying is also signing, and never `none`."""

_URL: Final = re.compile(r"[!-~]{1,2048}", re.ASCII)


def _https(value: str) -> str:
    """Keys that anybody on the way could replace would make every check after them worthless."""
    parts = urlsplit(value) if _URL.fullmatch(value) else None
    if parts is None or parts.scheme != "https" or not parts.hostname or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be https://host[:port]/path, without user, password or fragment")
    _ = parts.port  # ValueError where it is none
    return value


class JwksConfig(Strict):
    """Where an issuer's public keys are: a JWK Set (RFC 7517) in a file or at a URL."""

    jwks: Path | None = None
    """A file. It is looked at every second and read again when it has changed."""
    jwks_url: Annotated[str, AfterValidator(_https)] | None = None
    """An https URL. No redirect is followed and no proxy asked."""
    jwks_ca: Path | None = None
    """PEM certificates of who may vouch for the URL's host, in place of the system's."""
    jwks_refresh_seconds: float = Field(300.0, ge=1, le=86_400)
    """How old keys from a URL get before they are fetched again."""
    jwks_keep_seconds: float = Field(86_400.0, ge=1, le=30 * 86_400)
    """How long keys are believed while the URL can't be fetched: a key that leaked and was withdrawn stays good for
    whoever can keep the gateway from hearing of it, but not longer than this."""
    jwks_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long one fetch may take, all in all."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.jwks is None) == (self.jwks_url is None):
            raise ValueError("jwks or jwks_url is needed, and not both")
        if self.jwks_ca is not None and self.jwks_url is None:
            raise ValueError("jwks_ca is for a jwks_url")
        if self.jwks_keep_seconds < self.jwks_refresh_seconds:
            raise ValueError("jwks_keep_seconds must be at least jwks_refresh_seconds")
        return self


class IssuerConfig(JwksConfig):
    """One trusted issuer, for one audience. A token must fit all of one entry."""

    issuer: VisibleText
    """The exact `iss` claim."""
    audience: VisibleText
    """What `aud` must be or contain."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("ES256",)
    """Which signatures are believed."""
    tenant_claim: str = Field("tenant", min_length=1, max_length=256)
    """The claim that names the tenant."""
    tenants: frozenset[TenantName] | None = Field(None, min_length=1)
    """The tenants that this issuer may name. Default: any, which is right for the only issuer alone."""
    leeway_seconds: float = Field(30.0, ge=0, le=300)
    """How far clocks may differ."""


class RevocationConfig(Strict):
    """Where revoked tokens and subjects are listed, and what holds while the list can't be read."""

    file: Path | None = None
    """A JSON file; see gateway/authentication/revocation.py."""
    store: bool = False
    """Whether the list is in the [store], where all workers and replicas find it."""
    on_outage: Literal["keep", "deny"] = "keep"
    """`keep`: what was last known to be revoked stays so, and nothing else becomes so. `deny`: nobody is let in.
    Where no list was ever read nobody is let in either way."""
    outage_seconds: float = Field(5.0, ge=1, le=3600)
    """How old the last good look at the list may be before `deny` begins."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is not None) == self.store:
            raise ValueError("file or store = true is needed, and not both")
        return self
