"""The public keys of an issuer, from a JWK Set (RFC 7517): what each may verify is fixed by the key, not the token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from gateway.authentication import rsakey
from gateway.authentication.source import SourceError

_PUBLIC: Final = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
"""The members that make a public key, by `kty`. Others, a private key's above all, are never looked at."""
_FITTING: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("RSA", ""): frozenset({"RS256", "PS256"}),
}
_MAX_KEYS: Final = 256


class KeySetError(SourceError):
    """The JWK Set can't be used."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the algorithms it may verify."""

    public: Any
    """A public key of `cryptography`."""
    algorithms: frozenset[str]


KeySet = Mapping[str | None, Key]
"""Keys by `kid`. None is the key of a token without `kid`: there only where the set has one key."""


def parse(text: bytes) -> KeySet:
    """Reads a JWK Set. Keys of unknown types, for encryption, or too weak are left out (RFC 7517, section 5).

    An empty list is a set: it withdraws every key. Raises KeySetError for what is no set, for a repeated `kid`, and
    where all of several listed keys are unusable, which is a mistake and no withdrawal.
    """
    listed = _listed(text)
    usable = [(jwk.get("kid"), key) for jwk in listed if (key := _key(jwk)) is not None]
    if listed and not usable:
        raise KeySetError("none of its keys can be used")
    found: dict[str | None, Key] = {kid: key for kid, key in usable if isinstance(kid, str)}
    if len(found) != sum(isinstance(kid, str) for kid, _ in usable):
        raise KeySetError("a kid is repeated")
    if len(usable) == 1:
        found[None] = usable[0][1]
    return found


def _listed(text: bytes) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise KeySetError("not JSON") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise KeySetError("no list `keys` of objects")
    if len(keys) > _MAX_KEYS:
        raise KeySetError(f"more than {_MAX_KEYS} keys")
    return keys


def _key(jwk: dict[str, Any]) -> Key | None:
    """The key, or None where it can't verify a token for us."""
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _PUBLIC or not _for_signatures(jwk):
        return None
    algorithms = _FITTING.get((kty, str(jwk.get("crv", ""))), frozenset())
    if "alg" in jwk:
        algorithms = algorithms & {str(jwk["alg"])}
    if not algorithms:
        return None
    public = _public(kty, jwk, min(algorithms))
    if public is None or (isinstance(public, RSAPublicKey) and not rsakey.sound(public)):
        return None
    return Key(public, algorithms)


def _for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _public(kty: str, jwk: dict[str, Any], algorithm: str) -> Any:
    try:
        return PyJWK({"kty": kty, **{name: jwk[name] for name in _PUBLIC[kty]}}, algorithm).key
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError):
        return None
