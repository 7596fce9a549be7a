"""The stage itself: token in, Principal out; a signature is checked once for each token, not for each call."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from jwt import PyJWS, exceptions

from gateway.authentication import claims, header, refusal
from gateway.authentication.config import IssuerConfig
from gateway.authentication.keyset import Key
from gateway.authentication.keysource import KeyFile, KeySource
from gateway.principal import Principal

_JWS: Final = PyJWS(algorithms=["ES256", "EdDSA", "RS256", "PS256"], options={"enforce_minimum_key_length": True})
_SCHEME: Final = "bearer "
_CACHED_TOKENS: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Trust:
    """An issuer's entry and its keys."""

    config: IssuerConfig
    keys: KeySource


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token proved, and until when that holds."""

    principal: Principal
    until: float
    keys: KeySource
    generation: int


class Authenticator:
    """Turns an Authorization header into the Principal it proves."""

    def __init__(
        self,
        issuers: Sequence[IssuerConfig],
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        cached_tokens: int = _CACHED_TOKENS,
    ) -> None:
        """`clock` gives seconds since the Unix epoch. Raises ConfigError when an issuer's keys can't be read."""
        self._clock = clock
        self._cached_tokens = cached_tokens
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        files = {path: KeyFile(path, monotonic) for path in {config.jwks for config in issuers}}
        self._trusted = [_Trust(config, files[config.jwks]) for config in issuers]

    def authenticate(self, authorization: str | None, certificate_thumbprint: str | None = None) -> Principal:
        """The caller that `authorization` ("Bearer <token>", the scheme in any case) proves.

        `certificate_thumbprint` is the base64url SHA-256 of the client certificate of this connection, if it has one:
        a token bound to a certificate (RFC 8705) is good on such a connection alone.

        Raises Unauthenticated with one of the reasons in refusal.py, and nothing else whatever the string.
        """
        token = _token(authorization)
        digest = hashlib.sha256(token).digest()
        found = self._cache.get(digest)
        if found is not None and self._holds(found):
            self._cache.move_to_end(digest)
        else:
            self._cache.pop(digest, None)
            found = self._verify(token)
            self._remember(digest, found)
        bond = found.principal.confirmation
        if bond is not None and bond != certificate_thumbprint:
            raise refusal.binding()
        return found.principal

    def _holds(self, found: _Verified) -> bool:
        """Whether the token is in time and no key of its issuer has changed since."""
        found.keys.refresh()
        return self._clock() < found.until and found.generation == found.keys.generation

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._cache[digest] = verified
        if len(self._cache) > self._cached_tokens:
            self._cache.popitem(last=False)

    def _verify(self, token: bytes) -> _Verified:
        text = token.decode("ascii")
        unverified = header.read(text)
        trust = self._trust(unverified)
        trust.keys.refresh()
        key = _key(trust, unverified)
        _check_signature(text, key, unverified.algorithm)
        principal = claims.principal(unverified.claims, trust.config, token, self._clock())
        until = principal.expires_at + trust.config.leeway_seconds
        return _Verified(principal, until, trust.keys, trust.keys.generation)

    def _trust(self, unverified: header.Unverified) -> _Trust:
        """The entry whose issuer and audience the token names."""
        issuer = unverified.claims.get("iss")
        entries = [trust for trust in self._trusted if trust.config.issuer == issuer]
        if not entries:
            raise refusal.issuer()
        named = claims.audiences(unverified.claims)
        for trust in entries:
            if trust.config.audience in named:
                return trust
        raise refusal.audience()


def _token(authorization: str | None) -> bytes:
    """The token of the header, unread. Only its length and alphabet are known to be possible."""
    if not authorization or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise refusal.missing()
    if len(authorization) > len(_SCHEME) + header.MAX_TOKEN_BYTES:
        raise refusal.malformed(f"longer than {header.MAX_TOKEN_BYTES} bytes")
    if not authorization.isascii():
        raise refusal.malformed("not three base64url parts")
    return authorization[len(_SCHEME) :].encode("ascii")


def _key(trust: _Trust, unverified: header.Unverified) -> Key:
    """The key to check with. What the token calls its algorithm must fit both the issuer's list and the key."""
    if unverified.algorithm not in trust.config.algorithms:
        raise refusal.algorithm()
    key = trust.keys.find(unverified.kid)
    if key is None:
        raise refusal.key_unknown()
    if unverified.algorithm not in key.algorithms:
        raise refusal.algorithm()
    return key


def _check_signature(token: str, key: Key, algorithm: str) -> None:
    try:
        _JWS.decode_complete(token, key=key.public, algorithms=[algorithm])
    except exceptions.InvalidSignatureError:
        raise refusal.signature() from None
    except exceptions.PyJWTError:
        raise refusal.malformed("not a signed JWT") from None
