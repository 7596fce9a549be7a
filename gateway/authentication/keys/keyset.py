"""The public keys of an issuer, from a JWK Set (RFC 7517): the key decides what it may verify, and not the token.

A key is chosen by `kid` and by the token's algorithm, which must match its `kty`, `crv` and `alg`. Keys of different
kinds may share a `kid` (section 4.5), and one key may be listed once for each of its algorithms. A listed key that is
invalid, and an algorithm with two different keys for one `kid`, are left out and named; the rest of the set is used.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWK, PyJWTError

from gateway.authentication.keys import ed25519_key, rsa_key
from gateway.authentication.source import SourceError

MAX_KID: Final = 256
"""Characters of a `kid`, in a set as in a token."""

_PUBLIC: Final = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "RSA": ("n", "e")}
"""The members that make a public key, by `kty`. Others, above all those of a private key, are never read."""
_FITTING: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("RSA", ""): frozenset({"RS256", "PS256"}),
}
_NONE: Final = "none of its keys can be used: public keys for ES256, EdDSA, RS256 or PS256 are"
_MAX_KEYS: Final = 256
_SHOWN_KID: Final = 64


class KeySetError(SourceError):
    """The JWK Set can't be used."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key and the algorithms it may verify."""

    public: Any
    """A public key of `cryptography`."""
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys."""

    keys: Mapping[str | None, tuple[Key, ...]]
    """Keys by `kid`, of which no two verify the same algorithm. None is for tokens without `kid`: it exists only where
    the set has one key.
    """
    dropped: tuple[str, ...] = ()
    """The keys that were left out, and why: for the log."""

    def __contains__(self, kid: object) -> bool:
        return kid in self.keys

    def find(self, kid: str | None) -> tuple[Key, ...]:
        """The keys named `kid`, or the only key for None; empty where there is none."""
        return self.keys.get(kid, ())


EMPTY: Final = KeySet({})


class _Bad(Exception):
    """A listed key that is invalid; the text gives the reason, and nothing of the key."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A listed key that can be used."""

    place: int
    kid: str | None
    key: Key


def parse(text: bytes) -> KeySet:
    """The keys of a JWK Set. Keys of unknown types and for encryption are ignored (RFC 7517, section 5).

    An empty list is a set: it withdraws every key. Raises KeySetError for a text that is not a set, and where all of
    several listed keys are unusable: that is a mistake and not a withdrawal.
    """
    listed = _listed(text)
    usable, dropped = _usable(listed)
    if listed and not usable:
        raise KeySetError("; ".join((_NONE, *dropped[:1])))
    keys, ambiguous = _by_kid(usable)
    if len({_material(each.key) for each in usable}) == 1:
        keys[None] = _merged(each.key for each in usable)
    return KeySet(keys, (*dropped, *ambiguous))


def _listed(text: bytes) -> list[Any]:
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise KeySetError("not JSON" if text.strip() else "empty, and not a JWK Set") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise KeySetError("no list `keys` of objects, as a JWK Set has")
    if len(keys) > _MAX_KEYS:
        raise KeySetError(f"more than {_MAX_KEYS} keys")
    return keys


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    """An object, or None where it repeats a name: parsers differ on the one that counts."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


def _usable(listed: list[Any]) -> tuple[list[_Listed], list[str]]:
    usable, dropped = [], []
    for place, jwk in enumerate(listed):
        try:
            key = _key(jwk)
            if key is not None:
                usable.append(_Listed(place, _kid(jwk), key))
        except _Bad as why:
            dropped.append(f"key {place}{_shown(jwk)}: {why}")
    return usable, dropped


def _shown(jwk: Any) -> str:
    kid = jwk.get("kid") if isinstance(jwk, dict) else None
    return f" (kid {kid[:_SHOWN_KID]!a})" if isinstance(kid, str) else ""


def _by_kid(usable: list[_Listed]) -> tuple[dict[str | None, tuple[Key, ...]], list[str]]:
    """Keys by their names, and the ambiguous ones among them."""
    named: dict[str, list[_Listed]] = defaultdict(list)
    for each in usable:
        if each.kid is not None:
            named[each.kid].append(each)
    keys: dict[str | None, tuple[Key, ...]] = {}
    said: list[str] = []
    for kid, group in named.items():
        chosen, ambiguous = _chosen(each.key for each in group)
        if ambiguous:
            places = ", ".join(str(each.place) for each in group)
            said.append(f"keys {places} (kid {kid[:_SHOWN_KID]!a}): two for {', '.join(sorted(ambiguous))}")
        if chosen:
            keys[kid] = chosen
    return keys, said


def _chosen(group: Iterable[Key]) -> tuple[tuple[Key, ...], set[str]]:
    """The keys of one name, each for the algorithms that only it verifies, and the algorithms with two keys."""
    by_algorithm: dict[str, dict[bytes, Key]] = defaultdict(dict)
    for key in group:
        for algorithm in key.algorithms:
            by_algorithm[algorithm][_material(key)] = key
    ambiguous = {algorithm for algorithm, keys in by_algorithm.items() if len(keys) > 1}
    alone: dict[bytes, list[Key]] = defaultdict(list)
    for algorithm in sorted(set(by_algorithm) - ambiguous):
        for material, key in by_algorithm[algorithm].items():
            alone[material].append(Key(key.public, frozenset({algorithm})))
    return tuple(found for keys in alone.values() for found in _merged(keys)), ambiguous


def _merged(group: Iterable[Key]) -> tuple[Key, ...]:
    """One key that is listed once or more, for all of its algorithms."""
    every = list(group)
    return (Key(every[0].public, frozenset().union(*(key.algorithms for key in every))),)


def _material(key: Key) -> bytes:
    """The key itself, whatever its name."""
    der: bytes = key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def _kid(jwk: dict[str, Any]) -> str | None:
    if "kid" not in jwk:
        return None
    kid = jwk["kid"]
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID:
        raise _Bad(f"its kid is not text of 1 to {MAX_KID} characters")
    return kid


def _key(jwk: Any) -> Key | None:
    """The key, or None where it is not for tokens of this gateway."""
    if not isinstance(jwk, dict):
        raise _Bad("not an object, or an object with a repeated name")
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _PUBLIC or not _for_signatures(jwk):
        return None
    algorithms = _algorithms(kty, jwk)
    return Key(_public(kty, jwk, min(algorithms)), algorithms) if algorithms else None


def _algorithms(kty: str, jwk: dict[str, Any]) -> frozenset[str]:
    curve = jwk.get("crv", "")
    fitting = _FITTING.get((kty, curve), frozenset()) if isinstance(curve, str) else frozenset()
    return fitting & {str(jwk["alg"])} if "alg" in jwk else fitting


def _for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _public(kty: str, jwk: dict[str, Any], algorithm: str) -> Any:
    try:
        public = PyJWK({"kty": kty, **{name: jwk[name] for name in _PUBLIC[kty]}}, algorithm).key
    except (PyJWTError, KeyError, TypeError, ValueError, AttributeError):
        raise _Bad("its members are not a public key") from None
    if isinstance(public, RSAPublicKey) and not rsa_key.sound(public):
        raise _Bad("an RSA key that is too weak or too large")
    if isinstance(public, Ed25519PublicKey) and not ed25519_key.sound(public):
        raise _Bad("an Ed25519 key of small order, or no point of the curve")
    return public
