"""Which tokens are believed, and where the list of those that no longer are is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.authentication.claim_path import ClaimPath
from gateway.authentication.keys import discovery
from gateway.authentication.keys.https_url import https
from gateway.authentication.names import ScopeName, TenantName, VisibleText
from meshgate.runtime.config import ConfigPath, Strict

Algorithm = Literal["ES256", "EdDSA", "RS256", "PS256"]
"""All that can be configured: no HMAC, where verifying is also signing, and never `none`."""


class JwksConfig(Strict):
    """Where an issuer's public keys are: a JWK Set (RFC 7517) in a file, at a URL, or where the issuer says."""

    jwks: ConfigPath | None = None
    """A file. It is looked at every second and read again when it has changed."""
    jwks_url: Annotated[str, AfterValidator(https)] | None = None
    """An https URL. No redirect is followed and no proxy asked."""
    discovery: bool = False
    """Whether the issuer is asked where its keys are, at its URL's /.well-known/openid-configuration. As at a jwks_url,
    no redirect is followed and no proxy asked, for the document as for the keys."""
    jwks_ca: ConfigPath | None = None
    """PEM certificates of who may vouch for the hosts of URLs, in place of the system's."""
    jwks_refresh_seconds: float = Field(300.0, ge=1, le=86_400)
    """How old keys from a URL get before they are fetched again."""
    jwks_keep_seconds: float = Field(86_400.0, ge=1, le=30 * 86_400)
    """How long keys are believed while the URL can't be fetched: a key that leaked and was withdrawn stays good for
    whoever can keep the gateway from hearing of it, but not longer than this."""
    jwks_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long one fetch may take, all in all, discovery included."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.jwks is not None) + (self.jwks_url is not None) + self.discovery != 1:
            raise ValueError("one of jwks, jwks_url and discovery = true is needed, and no more than one")
        if self.jwks_ca is not None and self.jwks is not None:
            raise ValueError("jwks_ca: is for a jwks_url or discovery, and not for a file")
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
    tenant: TenantName | None = None
    """The tenant of every token of this issuer, whatever its claims say. Default: tenant_claim names it."""
    tenant_claim: ClaimPath = ("tenant",)
    """The claim that names the tenant, or a path to it: see claimpath.py."""
    tenants: frozenset[TenantName] | None = Field(None, min_length=1)
    """The tenants that this issuer may name. Default: any, which is right for the only issuer alone."""
    scope_claim: ClaimPath | None = None
    """The claim that grants scopes, or a path to it. Default: `scope`, else `scp`."""
    scope_map: Mapping[str, tuple[ScopeName, ...]] | None = Field(None, min_length=1)
    """What a value of that claim grants, such as a role; one that is not named grants nothing. Default: each value is
    itself a scope."""
    leeway_seconds: float = Field(30.0, ge=0, le=300)
    """How far clocks may differ."""

    @model_validator(mode="after")
    def _one_tenant(self) -> Self:
        others = {"tenant_claim", "tenants"} & self.model_fields_set
        if self.tenant is not None and others:
            raise ValueError(
                f"tenant: is the only one of this issuer's tokens; leave {' and '.join(sorted(others))} out"
            )
        return self

    @model_validator(mode="after")
    def _discoverable(self) -> Self:
        if self.discovery:
            try:
                discovery.place(self.issuer)
            except ValueError as error:
                raise ValueError(f"issuer: for discovery it {error}") from None
        return self


class RevocationConfig(Strict):
    """Where revoked tokens and subjects are listed, and what holds while the list can't be read."""

    file: ConfigPath | None = None
    """A JSON file; see gateway/authentication/revocation/revocation_list.py."""
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
