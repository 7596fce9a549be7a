"""The [[issuers]] and [revocation] sections: which tokens are trusted, and where the revocation list is."""

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
"""All algorithms that can be configured: no HMAC, where a verifier can also sign, and never `none`."""


class JwksConfig(Strict):
    """Where an issuer's public keys are: a JWK Set (RFC 7517) in a file, at a URL, or at the issuer's
    discovered URL.
    """

    jwks: ConfigPath | None = None
    """A file. The gateway looks at it every second and reads it again when it has changed."""
    jwks_url: Annotated[str, AfterValidator(https)] | None = None
    """An https URL. The gateway follows no redirect and uses no proxy."""
    discovery: bool = False
    """Whether the issuer names the URL of its keys, in its document /.well-known/openid-configuration. As for jwks_url,
    the gateway follows no redirect and uses no proxy, for the document and for the keys.
    """
    jwks_ca: ConfigPath | None = None
    """PEM certificates of the CAs for the hosts of these URLs, in place of the system's."""
    jwks_refresh_seconds: float = Field(300.0, ge=1, le=86_400)
    """The age at which keys from a URL are fetched again."""
    jwks_keep_seconds: float = Field(86_400.0, ge=1, le=30 * 86_400)
    """How long keys stay trusted while the URL can't be fetched. An attacker who keeps the gateway from the URL can use
    a leaked and withdrawn key for no longer than this.
    """
    jwks_timeout_seconds: float = Field(5.0, gt=0, le=60)
    """How long one fetch may take in all, discovery included."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.jwks is not None) + (self.jwks_url is not None) + self.discovery != 1:
            raise ValueError("one of jwks, jwks_url and discovery = true is required, and no more than one")
        if self.jwks_ca is not None and self.jwks is not None:
            raise ValueError("jwks_ca: is for a jwks_url or discovery, and not for a file")
        if self.jwks_keep_seconds < self.jwks_refresh_seconds:
            raise ValueError("jwks_keep_seconds must be at least jwks_refresh_seconds")
        return self


class IssuerConfig(JwksConfig):
    """One trusted issuer, for one audience. A token must match all of one entry."""

    issuer: VisibleText
    """The exact `iss` claim."""
    audience: VisibleText
    """The value that `aud` must be or contain."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("ES256",)
    """The accepted signature algorithms."""
    tenant: TenantName | None = None
    """The tenant of every token of this issuer, whatever its claims. Default: tenant_claim names it."""
    tenant_claim: ClaimPath = ("tenant",)
    """The claim that names the tenant, or a path to it: see claim_path.py."""
    tenants: frozenset[TenantName] | None = Field(None, min_length=1)
    """The tenants that this issuer may name. Default: any, which is right only for a single issuer."""
    scope_claim: ClaimPath | None = None
    """The claim that grants scopes, or a path to it. Default: `scope`, else `scp`."""
    scope_map: Mapping[str, tuple[ScopeName, ...]] | None = Field(None, min_length=1)
    """The scopes that a value of that claim grants, such as a role; a value that is not listed grants nothing. Default:
    each value is itself a scope.
    """
    leeway_seconds: float = Field(30.0, ge=0, le=300)
    """How far the clocks of issuer and gateway may differ."""

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
    """Where the revocation list is, and what holds while it can't be read."""

    file: ConfigPath | None = None
    """A JSON file; gateway/authentication/revocation/revocation_list.py has its format."""
    store: bool = False
    """Whether the list is in the [store], where all workers and replicas find it."""
    on_outage: Literal["keep", "deny"] = "keep"
    """`keep`: the last known list stays in force. `deny`: all calls are refused. Before the first read of a list all
    calls are refused either way.
    """
    outage_seconds: float = Field(5.0, ge=1, le=3600)
    """The age of the last good read at which `deny` begins."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is not None) == self.store:
            raise ValueError("file or store = true is required, and not both")
        return self
