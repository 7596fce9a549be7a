"""The reader of a compact JWS (RFC 7515), as far as a token may be read before its signature is checked.

Nothing here is trusted yet: it serves to find the issuer's entry and the key. The payload is decoded and parsed once,
here. The same object is used after the signature over the same bytes has been checked, so that two parsers can't
disagree.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from gateway.authentication import token_errors
from gateway.authentication.keys.keyset import MAX_KID

MAX_TOKEN_BYTES: Final = 8 * 1024
"""A longer token is refused unread."""

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]{1,2048})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{1,2048})", re.ASCII)
_FORBIDDEN: Final = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c", "zip"})
"""Parameters that would change how a token is read, or would bring a key along (RFC 8725, section 3.10)."""
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_LAST_LETTERS: Final = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""The possible last letters, by the length of the last group. A group of two has four spare bits, one of three has two.
A group of one is never valid.
"""


@dataclass(frozen=True, slots=True)
class Unverified:
    """The parts of a token. Nothing vouches for the claims until the signature is checked."""

    algorithm: str
    kid: str | None
    claims: dict[str, Any]


def read(token: str) -> Unverified:
    """The parts of a token. Raises Unauthenticated (TOKEN_MALFORMED, TOKEN_ALGORITHM)."""
    parts = _COMPACT.fullmatch(token)
    if parts is None or not all(map(_canonical, parts.groups())):
        raise token_errors.malformed("expected three base64url parts")
    header = _object(parts[1], "header")
    claims = _object(parts[2], "payload")
    if not _FORBIDDEN.isdisjoint(header):
        raise token_errors.malformed("its header has a parameter that is not allowed")
    return Unverified(_algorithm(header), _kid(header), _typed(header, claims))


def _canonical(segment: str) -> bool:
    """Whether no other text decodes to the same bytes: the spare bits of the last letter must be zero."""
    surplus = len(segment) % 4
    return surplus == 0 or segment[-1] in _LAST_LETTERS.get(surplus, "")


def _algorithm(header: dict[str, Any]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise token_errors.algorithm()
    return algorithm


def _kid(header: dict[str, Any]) -> str | None:
    if "kid" not in header:
        return None
    kid = header["kid"]
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID:
        raise token_errors.malformed(f"kid must be a string of 1 to {MAX_KID} characters")
    return kid


def _typed(header: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    """The claims, where `typ` is that of a JWT (RFC 8725, section 3.11) or absent."""
    typ = header.get("typ", "JWT")
    if not isinstance(typ, str) or typ.lower() not in _TYPES:
        raise token_errors.malformed("typ must be JWT or at+jwt")
    return claims


def _object(segment: str, name: str) -> dict[str, Any]:
    try:
        decoded = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        value = json.loads(decoded.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_not_json)
    except (ValueError, RecursionError, binascii.Error):
        raise token_errors.malformed(f"its {name} is not base64url of a JSON object") from None
    if not isinstance(value, dict):
        raise token_errors.malformed(f"its {name} is not base64url of a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are unique: of two `sub` claims, parsers differ on the one that counts."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is repeated")
    return found


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
