"""The checks of a token, in order. `meshgate policy explain` shows their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from jwt import PyJWS, exceptions

from gateway.authentication import claims, header, token_errors
from gateway.authentication.config import IssuerConfig
from gateway.authentication.keys.key_source import KeySource
from gateway.authentication.keys.keyset import Key
from gateway.authentication.revocation.revocation_list import Revocable
from gateway.principal import Principal

CHECKS: Final = ("token", "issuer", "audience", "algorithm", "key", "signature", "time", "claims", "tenant")

_JWS: Final = PyJWS(algorithms=["ES256", "EdDSA", "RS256", "PS256"], options={"enforce_minimum_key_length": True})
_SCHEME: Final = "bearer "

OnPassed = Callable[[str], object]
"""Called with the name of each check that a token has passed."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer's entry and its keys."""

    config: IssuerConfig
    keys: KeySource


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of a verified token, and until when it holds."""

    principal: Principal
    revocable: Revocable
    until: float
    keys: KeySource
    generation: int
    config: IssuerConfig


class Verifier:
    """Verifies tokens of trusted issuers."""

    def __init__(self, trusted: Sequence[TrustedIssuer], monotonic: Callable[[], float]) -> None:
        self._trusted = trusted
        self._monotonic = monotonic

    def verify(self, token: bytes, now: float, passed: OnPassed) -> Verified:
        """Makes all of CHECKS; `now` is in seconds since the epoch. Raises Unauthenticated or Unavailable."""
        text = token.decode("ascii")
        unverified = header.read(text)
        passed("token")
        trust = self._trust(unverified, passed)
        key = self._key(trust, unverified, passed)
        check_signature(text, key, unverified.algorithm)
        passed("signature")
        return _verified(unverified, trust, token, now, passed)

    def _trust(self, unverified: header.Unverified, passed: OnPassed) -> TrustedIssuer:
        """The first entry with the token's issuer and audience."""
        issuer = unverified.claims.get("iss")
        entries = [trust for trust in self._trusted if trust.config.issuer == issuer]
        if not entries:
            raise token_errors.issuer()
        passed("issuer")
        named = claims.audiences(unverified.claims)
        for trust in entries:
            if trust.config.audience in named:
                passed("audience")
                return trust
        raise token_errors.audience()

    def _key(self, trust: TrustedIssuer, unverified: header.Unverified, passed: OnPassed) -> Key:
        """The key for the signature. The token's algorithm must match both the issuer's list and the key."""
        if unverified.algorithm not in trust.config.algorithms:
            raise token_errors.algorithm()
        passed("algorithm")
        if self._monotonic() >= trust.keys.good_until:
            raise token_errors.keys_unavailable()
        named = trust.keys.find(unverified.kid)
        if not named:
            raise token_errors.key_unknown()
        key = next((key for key in named if unverified.algorithm in key.algorithms), None)
        if key is None:
            raise token_errors.algorithm()
        passed("key")
        return key


def bearer(authorization: str | None) -> bytes:
    """The token of an Authorization header, unread. Only its length and alphabet are checked."""
    if not authorization or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise token_errors.missing()
    if len(authorization) > len(_SCHEME) + header.MAX_TOKEN_BYTES:
        raise token_errors.malformed(f"longer than {header.MAX_TOKEN_BYTES} bytes")
    if not authorization.isascii():
        raise token_errors.malformed("expected three base64url parts")
    return authorization[len(_SCHEME) :].encode("ascii")


def check_signature(token: str, key: Key, algorithm: str) -> None:
    """Raises Unauthenticated unless `key` made the signature by `algorithm`, which the caller has allowed for it."""
    try:
        _JWS.decode_complete(token, key=key.public, algorithms=[algorithm])
    except exceptions.InvalidSignatureError:
        raise token_errors.signature() from None
    except exceptions.PyJWTError:
        raise token_errors.malformed("not a signed JWT") from None


def _verified(
    unverified: header.Unverified, trust: TrustedIssuer, token: bytes, now: float, passed: OnPassed
) -> Verified:
    """The result of claims with a valid signature."""
    config = trust.config
    expires_at = claims.expiry(unverified.claims, config.leeway_seconds, now)
    passed("time")
    principal = claims.principal(unverified.claims, config, token, expires_at)
    passed("claims")
    if config.tenants is not None and principal.tenant not in config.tenants:
        raise token_errors.tenant()
    passed("tenant")
    until = expires_at + config.leeway_seconds
    revocable = claims.revocable(unverified.claims, principal)
    return Verified(principal, revocable, until, trust.keys, trust.keys.generation, config)
