"""The authenticator: a token in, a Principal out. A signature is checked once for each token, not for each call.

Each background change has a number: the generation of an issuer's keys and the revision of the revocation list.
So the first call after a change drops a token that was verified before, whatever the change was.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gateway.authentication import claims, header, token_errors
from gateway.authentication.config import IssuerConfig, JwksConfig, RevocationConfig
from gateway.authentication.keys.key_source import KeySource, source
from gateway.authentication.revocation.revocation_source import RevocationSource
from gateway.authentication.source import Source
from gateway.authentication.verification import CHECKS, OnPassed, TrustedIssuer, Verified, Verifier, bearer
from gateway.principal import Principal
from meshgate import errors
from meshgate.runtime.config import ConfigError
from meshgate.runtime.refresher import SourceState

_CACHED_TOKENS: Final = 10_000
STEPS: Final = ("revocations", *CHECKS, "revoked", "certificate")
"""All steps that a token must pass, in order."""


class _CachedToken:
    """A token that was verified before."""

    __slots__ = ("revision", "verified")

    def __init__(self, verified: Verified, revision: int) -> None:
        self.verified = verified
        self.revision = revision
        """The revision of the revocation list that did not have the token."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """How far a token came: the steps that it passed, and the principal that it proves or the refusal."""

    passed: tuple[str, ...]
    principal: Principal | None
    refusal: errors.MeshError | None
    origin: Mapping[str, str] = field(default_factory=dict)
    """The claims that gave the `scopes` and the `tenant`, where the configuration names them."""


class Authenticator:
    """Turns an Authorization header into the Principal that it proves."""

    def __init__(
        self,
        issuers: Sequence[IssuerConfig],
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        cached_tokens: int = _CACHED_TOKENS,
        revocations: RevocationSource | None = None,
    ) -> None:
        """`clock` gives seconds since the Unix epoch. Raises ConfigError when an issuer's keys can't be read."""
        self._clock = clock
        self._monotonic = monotonic
        self._cached_tokens = cached_tokens
        self._cache: OrderedDict[bytes, _CachedToken] = OrderedDict()
        self._revocations = revocations or RevocationSource(None, RevocationConfig.model_construct(), monotonic)
        self._revocations.trust(config.issuer for config in issuers)
        self._listed = self._revocations.known
        sources = _sources(issuers, monotonic)
        trusted = [TrustedIssuer(config, sources[_place(config)]) for config in issuers]
        self._kept: list[Source] = [*sources.values(), self._revocations]
        self._verifier = Verifier(trusted, monotonic)

    async def start(self) -> None:
        """Fetches keys and revocations, in bounded time, and keeps them fresh from here on.

        A source that fails is tried again in the background. Until then its tokens are refused as Unavailable.
        """
        await self.refresh()
        for each in self._kept:
            each.refresher.start()

    async def refresh(self) -> None:
        """Refreshes every source once."""
        await asyncio.gather(*(each.refresh() for each in self._kept))

    async def stop(self) -> None:
        """Ends the work in the background."""
        await asyncio.gather(*(each.refresher.stop() for each in self._kept))

    def sources(self) -> list[SourceState]:
        """The freshness of the sources of keys and revocations, for metrics."""
        return [each.refresher.state() for each in self._kept]

    def authenticate(self, authorization: str | None, certificate_thumbprint: str | None = None) -> Principal:
        """The caller that `authorization` ("Bearer <token>", the scheme in any case) proves.

        `certificate_thumbprint` is the base64url SHA-256 of the client certificate of this connection, if it has one
        (see certificate.py). A token that is bound to a certificate (RFC 8705) is valid only on such a connection.

        Raises Unauthenticated with a reason of token_errors.py whatever the string, or Unavailable where keys or
        revocations are not available, and nothing else.
        """
        now = self._monotonic()
        if now >= self._revocations.good_until:
            raise token_errors.revocations_unavailable()
        token = bearer(authorization)
        digest = hashlib.sha256(token).digest()
        known = self._cache.get(digest)
        if known is not None and self._holds(known, now):
            self._cache.move_to_end(digest)
        else:
            known = self._renew(digest, token)
        principal = known.verified.principal
        if principal.confirmation is not None and principal.confirmation != certificate_thumbprint:
            raise token_errors.binding()
        return principal

    def examine(self, authorization: str | None, certificate_thumbprint: str | None = None) -> TokenReport:
        """The same with a report: every step of STEPS is made anew, and the first failure is the error that a caller
        would get.
        """
        passed: list[str] = []
        try:
            verified = self._examine(authorization, certificate_thumbprint, passed.append)
        except errors.MeshError as error:
            return TokenReport(tuple(passed), None, error)
        said = header.read(bearer(authorization).decode("ascii")).claims
        return TokenReport(tuple(passed), verified.principal, None, claims.origin(said, verified.config))

    def _examine(self, authorization: str | None, thumbprint: str | None, passed: OnPassed) -> Verified:
        if self._monotonic() >= self._revocations.good_until:
            raise token_errors.revocations_unavailable()
        passed("revocations")
        verified = self._verify(bearer(authorization), passed)
        passed("revoked")
        if verified.principal.confirmation not in (None, thumbprint):
            raise token_errors.binding()
        passed("certificate")
        return verified

    def _holds(self, known: _CachedToken, now: float) -> bool:
        """Whether the token is in time, its issuer's keys are unchanged since, and it is not revoked."""
        verified = known.verified
        keys = verified.keys
        if known.revision != self._listed.revision:
            if self._listed.covers(verified.revocable):
                raise token_errors.revoked()  # it stays cached, so that the next refusal is cheap
            known.revision = self._listed.revision
        return self._clock() < verified.until and verified.generation == keys.generation and now < keys.good_until

    def _renew(self, digest: bytes, token: bytes) -> _CachedToken:
        """Verifies a token that is not cached, or no longer valid there, and caches it."""
        self._cache.pop(digest, None)
        made = self._cache[digest] = _CachedToken(self._verify(token, _ignore_step), self._listed.revision)
        if len(self._cache) > self._cached_tokens:
            self._cache.popitem(last=False)
        return made

    def _verify(self, token: bytes, passed: OnPassed) -> Verified:
        verified = self._verifier.verify(token, self._clock(), passed)
        if self._listed.covers(verified.revocable):
            raise token_errors.revoked()
        return verified


def _ignore_step(_check: str) -> None:
    """The `passed` of a call, which reports no steps."""


class _KeyLocation(NamedTuple):
    """Where an issuer's keys are: issuer entries with the same location share the keys."""

    jwks: JwksConfig
    issuer: str
    """The issuer that is asked for the location; empty where the configuration has it."""


def _place(config: IssuerConfig) -> _KeyLocation:
    jwks = JwksConfig.model_validate(config.model_dump(include=set(JwksConfig.model_fields)))
    return _KeyLocation(jwks, config.issuer if config.discovery else "")


def _sources(issuers: Sequence[IssuerConfig], clock: Callable[[], float]) -> dict[_KeyLocation, KeySource]:
    named: dict[tuple[str, str], int] = {}
    made: dict[_KeyLocation, KeySource] = {}
    for number, config in enumerate(issuers):
        first = named.setdefault((config.issuer, config.audience), number)
        if first != number:
            raise ConfigError(f"issuers.{number}: has the issuer and audience of issuers.{first}: remove one of them")
        place = _place(config)
        if place not in made:
            name = f"{config.issuer} {config.audience}"
            made[place] = source(place.jwks, name, clock, place.issuer, f"issuers.{number}")
    return made
