"""The rules for the claims of a token with a valid signature, and the Principal that they make. Pure functions."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

from gateway.authentication import claim_path, names, token_errors
from gateway.authentication.config import IssuerConfig
from gateway.authentication.revocation.revocation_list import Revocable
from gateway.principal import Principal

_MAX_DATE: Final = 253_402_300_799
"""The last second of the year 9999: every library can show this date."""
_SCOPE_RULE: Final = "words (RFC 6749) with single spaces between; a list of words in any claim but scope"


def principal(claims: dict[str, Any], issuer: IssuerConfig, token: bytes, expires_at: int) -> Principal:
    """The caller that `claims` name. Raises Unauthenticated."""
    return Principal(
        tenant=_tenant(claims, issuer),
        subject=_subject(claims),
        scopes=_scopes(claims, issuer),
        token_id_hash=hashlib.sha256(_token_id(claims, token)).hexdigest()[:16],
        expires_at=expires_at,
        issuer=issuer.issuer,
        confirmation=_confirmation(claims),
    )


def expiry(claims: dict[str, Any], leeway: float, now: float) -> int:
    """When the token expires, in seconds since the Unix epoch like `now`. Raises Unauthenticated outside of its time.

    RFC 7519, section 4.1: a token is refused from `exp` on, and before `nbf` and `iat`, each with the issuer's leeway.
    """
    expires_at = _date(claims, "exp")
    if expires_at is None:
        raise token_errors.claim("exp", "present")
    if now >= expires_at + leeway:
        raise token_errors.expired()
    for name in ("nbf", "iat"):
        begins = _date(claims, name)
        if begins is not None and begins > now + leeway:
            raise token_errors.not_yet_valid()
    return math.floor(expires_at)


def revocable(claims: dict[str, Any], principal: Principal) -> Revocable:
    """The names by which the token that made `principal` can be revoked."""
    return Revocable(principal.issuer, claims.get("jti"), principal.subject, claims.get("iat"))


def audiences(claims: dict[str, Any]) -> list[str]:
    """The `aud` claim: one string or a list of them. Raises Unauthenticated (TOKEN_AUDIENCE)."""
    found = claims.get("aud")
    if isinstance(found, str):
        return [found]
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return found
    raise token_errors.audience()


def _date(claims: dict[str, Any], name: str) -> float | None:
    """A NumericDate: a number, never a string, true or null."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_DATE:
        raise token_errors.claim(name, f"a number from 0 to {_MAX_DATE}")
    return value


def _tenant(claims: dict[str, Any], issuer: IssuerConfig) -> str:
    if issuer.tenant is not None:
        return issuer.tenant
    value = claim_path.at(claims, issuer.tenant_claim)
    if not names.is_tenant(value):
        where = claim_path.shown(issuer.tenant_claim)
        raise token_errors.claim(
            where, "a tenant: 1 to 128 printable ASCII characters that begin with a letter or digit"
        )
    return value


def _subject(claims: dict[str, Any]) -> str:
    value = claims.get("sub")
    if not names.is_visible(value, names.MAX_SUBJECT):
        raise token_errors.claim("sub", names.visible_rule(names.MAX_SUBJECT))
    return value


def _scopes(claims: dict[str, Any], issuer: IssuerConfig) -> frozenset[str]:
    values = grants(claims, issuer)
    if issuer.scope_map is not None:
        return frozenset(scope for value in values for scope in issuer.scope_map.get(value, ()))
    if not all(map(names.is_scope, values)):
        raise token_errors.claim(_granting(claims, issuer), _SCOPE_RULE)
    return frozenset(values)


def grants(claims: dict[str, Any], issuer: IssuerConfig) -> list[str]:
    """The words of the claim that grants scopes: a string of words, or a list of them. An absent claim has none.

    U+0020 alone separates words (RFC 6749, section 3.3): another space would split a word. Without a scope_claim they
    are in `scope`, a string (RFC 8693), or else in `scp`. Raises Unauthenticated.
    """
    listed = issuer.scope_claim is not None or "scope" not in claims
    value = claim_path.at(claims, issuer.scope_claim or (("scp",) if listed else ("scope",)))
    if value is claim_path.ABSENT:
        return []
    if isinstance(value, str):
        return [word for word in value.split(" ") if word]
    if listed and isinstance(value, list) and all(isinstance(word, str) for word in value):
        return value
    raise token_errors.claim(_granting(claims, issuer), _SCOPE_RULE)


def _granting(claims: dict[str, Any], issuer: IssuerConfig) -> str:
    if issuer.scope_claim is not None:
        return claim_path.shown(issuer.scope_claim)
    return "scope" if "scope" in claims else "scp"


def origin(claims: dict[str, Any], issuer: IssuerConfig) -> dict[str, str]:
    """The claims that gave the scopes and the tenant, for people, where these are not the usual claims."""
    said = {}
    if issuer.scope_claim is not None or issuer.scope_map is not None:
        said["scopes"] = f"{_granting(claims, issuer)}: {', '.join(grants(claims, issuer)) or 'nothing'}"
    if issuer.tenant is not None:
        said["tenant"] = "all of this issuer's"
    elif issuer.tenant_claim != ("tenant",):
        said["tenant"] = claim_path.shown(issuer.tenant_claim)
    return said


def _token_id(claims: dict[str, Any], token: bytes) -> bytes:
    if "jti" not in claims:
        return token
    value = claims["jti"]
    if not names.is_visible(value, names.MAX_TEXT):
        raise token_errors.claim("jti", names.visible_rule(names.MAX_TEXT))
    return value.encode()


def _confirmation(claims: dict[str, Any]) -> str | None:
    """The certificate to which a token is bound. A binding of another kind is refused, not ignored (RFC 7800)."""
    if "cnf" not in claims:
        return None
    bond = claims["cnf"]
    if not isinstance(bond, dict) or set(bond) != {"x5t#S256"} or not isinstance(bond["x5t#S256"], str):
        raise token_errors.claim("cnf", "a certificate's x5t#S256 alone")
    return bond["x5t#S256"]
