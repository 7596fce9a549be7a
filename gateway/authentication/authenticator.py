"""The stage itself: token in, Principal out; a signature is checked once for each token, not for each call.

What can change in the background is compared by number: the generation of an issuer's keys and the revision of the
list of revocations. So a token that was verified before is dropped by the first call after a change, however it came.
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
"""All that a token must pass, in order."""


class _CachedToken:
    """A token that was verified before."""

    __slots__ = ("revision", "verified")

    def __init__(self, verified: Verified, revision: int) -> None:
        self.verified = verified
        self.revision = revision
        """Of the list of revocations that did not have it."""


@dataclass(frozen=True, slots=True)
class TokenReport:
    """How far a token came: the steps it passed, and who it proves or why not."""

    passed: tuple[str, ...]
    principal: Principal | None
    refusal: errors.MeshError | None
    origin: Mapping[str, str] = field(default_factory=dict)
    """Which claims gave the `scopes` and the `tenant`, where the configuration says so."""


class Authenticator:
    """Turns an Authorization header into the Principal it proves."""

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
        """Fetches what has to be fetched, within bounded time, and keeps keys and revocations fresh from here on.

        What can't be had is tried again in the background; until then its tokens are refused as Unavailable.
        """
        await self.refresh()
        for each in self._kept:
            each.refresher.start()

    async def refresh(self) -> None:
        """Looks at every source, once."""
        await asyncio.gather(*(each.refresh() for each in self._kept))

    async def stop(self) -> None:
        """Ends the work in the background."""
        await asyncio.gather(*(each.refresher.stop() for each in self._kept))

    def sources(self) -> list[SourceState]:
        """How the sources of keys and revocations are, for metrics."""
        return [each.refresher.state() for each in self._kept]

    def authenticate(self, authorization: str | None, certificate_thumbprint: str | None = None) -> Principal:
        """The caller that `authorization` ("Bearer <token>", the scheme in any case) proves.

        `certificate_thumbprint` is the base64url SHA-256 of the client certificate of this connection, if it has one
        (see certificate.py): a token bound to a certificate (RFC 8705) is good on such a connection alone.

        Raises Unauthenticated with one of the reasons in refusal.py whatever the string, or Unavailable where keys or
        revocations are not known, and nothing else.
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
        """The same, but told: every step of STEPS is made anew, and the first that fails is what a caller would get."""
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
        """Whether the token is in time, no key of its issuer has changed since, and it is not revoked."""
        verified = known.verified
        keys = verified.keys
        if known.revision != self._listed.revision:
            if self._listed.covers(verified.revocable):
                raise token_errors.revoked()  # and it stays known, so that refusing it again is cheap
            known.revision = self._listed.revision
        return self._clock() < verified.until and verified.generation == keys.generation and now < keys.good_until

    def _renew(self, digest: bytes, token: bytes) -> _CachedToken:
        """Verifies a token that is not known, or no longer, and remembers it."""
        self._cache.pop(digest, None)
        made = self._cache[digest] = _CachedToken(self._verify(token, _unnoticed), self._listed.revision)
        if len(self._cache) > self._cached_tokens:
            self._cache.popitem(last=False)
        return made

    def _verify(self, token: bytes, passed: OnPassed) -> Verified:
        verified = self._verifier.verify(token, self._clock(), passed)
        if self._listed.covers(verified.revocable):
            raise token_errors.revoked()
        return verified


def _unnoticed(_check: str) -> None:
    """Nobody asked how far a token came."""


class _KeyLocation(NamedTuple):
    """What of an issuer's entry says where its keys are: entries that agree share them."""

    jwks: JwksConfig
    issuer: str
    """Who says where they are; nobody where the configuration does."""


def _place(config: IssuerConfig) -> _KeyLocation:
    jwks = JwksConfig.model_validate(config.model_dump(include=set(JwksConfig.model_fields)))
    return _KeyLocation(jwks, config.issuer if config.discovery else "")


def _sources(issuers: Sequence[IssuerConfig], clock: Callable[[], float]) -> dict[_KeyLocation, KeySource]:
    named: dict[tuple[str, str], int] = {}
    made: dict[_KeyLocation, KeySource] = {}
    for number, config in enumerate(issuers):
        first = named.setdefault((config.issuer, config.audience), number)
        if first != number:
            raise ConfigError(f"issuers.{number}: has the issuer and audience of issuers.{first}: leave one out")
        place = _place(config)
        if place not in made:
            name = f"{config.issuer} {config.audience}"
            made[place] = source(place.jwks, name, clock, place.issuer, f"issuers.{number}")
    return made
