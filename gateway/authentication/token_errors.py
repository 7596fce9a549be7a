"""The errors of a refused token: stable reasons, and messages that reveal nothing about keys or content."""

from __future__ import annotations

from typing import Final

from meshgate import errors

REVOKED: Final = "TOKEN_REVOKED"
_RETRY_SECONDS: Final = 1.0


def missing() -> errors.Unauthenticated:
    """The call has no bearer token, or more than one."""
    return _refusal("TOKEN_MISSING", "a bearer token is required, exactly one")


def malformed(why: str) -> errors.Unauthenticated:
    """The token is not readable, or has a form that is not accepted."""
    return _refusal("TOKEN_MALFORMED", f"the token is not readable: {why}")


def expired() -> errors.Unauthenticated:
    """The token has expired."""
    return _refusal("TOKEN_EXPIRED", "the token has expired")


def not_yet_valid() -> errors.Unauthenticated:
    """The token is not valid yet."""
    return _refusal("TOKEN_NOT_YET_VALID", "the token is not valid yet")


def audience() -> errors.Unauthenticated:
    """The token is for another audience."""
    return _refusal("TOKEN_AUDIENCE", "the token is for another audience")


def issuer() -> errors.Unauthenticated:
    """No configured issuer made the token."""
    return _refusal("TOKEN_ISSUER", "the token's issuer is not trusted here")


def algorithm() -> errors.Unauthenticated:
    """The token's algorithm is not allowed for its issuer and key."""
    return _refusal("TOKEN_ALGORITHM", "the token's algorithm is not allowed for its issuer and key")


def key_unknown() -> errors.Unauthenticated:
    """The issuer has no key with the token's key id."""
    return _refusal("TOKEN_KEY_UNKNOWN", "the token's key is not one of its issuer's")


def signature() -> errors.Unauthenticated:
    """The token's signature does not verify."""
    return _refusal("TOKEN_SIGNATURE", "the token's signature is invalid")


def claim(name: str, rule: str) -> errors.Unauthenticated:
    """A claim of the token breaks a rule."""
    return _refusal("TOKEN_CLAIM", f"the token's claim {name} must be {rule}")


def binding() -> errors.Unauthenticated:
    """The token is bound to a client certificate that the connection did not present."""
    return _refusal("TOKEN_BINDING", "the token is bound to a client certificate that this connection did not present")


def tenant() -> errors.Unauthenticated:
    """The token's issuer may not name this tenant."""
    return _refusal("TOKEN_TENANT", "the token's issuer may not name this tenant")


def revoked() -> errors.Unauthenticated:
    """The token is on the revocation list."""
    return _refusal(REVOKED, "the token has been revoked")


def keys_unavailable() -> errors.Unavailable:
    """The issuer's keys are not available. The token may be valid."""
    return errors.Unavailable(
        "the keys of the token's issuer are unavailable", reason="KEYS_UNAVAILABLE", retry_after=_RETRY_SECONDS
    )


def revocations_unavailable() -> errors.Unavailable:
    """The revocation list is unavailable: no token can be trusted."""
    return errors.Unavailable(
        "the revocation list is unavailable", reason="REVOCATIONS_UNAVAILABLE", retry_after=_RETRY_SECONDS
    )


def _refusal(reason: str, message: str) -> errors.Unauthenticated:
    return errors.Unauthenticated(message, reason=reason)
