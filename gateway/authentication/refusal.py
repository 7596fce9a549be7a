"""The reasons for which a token is refused: stable words, and sentences that tell nothing about keys or content."""

from __future__ import annotations

from meshgate import errors


def missing() -> errors.Unauthenticated:
    return _refusal("TOKEN_MISSING", "a bearer token is required, exactly one")


def malformed(why: str) -> errors.Unauthenticated:
    return _refusal("TOKEN_MALFORMED", f"the token is not acceptable: {why}")


def expired() -> errors.Unauthenticated:
    return _refusal("TOKEN_EXPIRED", "the token has expired")


def not_yet_valid() -> errors.Unauthenticated:
    return _refusal("TOKEN_NOT_YET_VALID", "the token is not valid yet")


def audience() -> errors.Unauthenticated:
    return _refusal("TOKEN_AUDIENCE", "the token is for another audience")


def issuer() -> errors.Unauthenticated:
    return _refusal("TOKEN_ISSUER", "the token's issuer is not trusted here")


def algorithm() -> errors.Unauthenticated:
    return _refusal("TOKEN_ALGORITHM", "the token's algorithm is not allowed for its issuer and key")


def key_unknown() -> errors.Unauthenticated:
    return _refusal("TOKEN_KEY_UNKNOWN", "the token's key is not one of its issuer's")


def signature() -> errors.Unauthenticated:
    return _refusal("TOKEN_SIGNATURE", "the token's signature is wrong")


def claim(name: str, rule: str) -> errors.Unauthenticated:
    return _refusal("TOKEN_CLAIM", f"the token's claim {name} must be {rule}")


def binding() -> errors.Unauthenticated:
    return _refusal("TOKEN_BINDING", "the token is bound to a client certificate that this connection did not present")


def _refusal(reason: str, message: str) -> errors.Unauthenticated:
    return errors.Unauthenticated(message, reason=reason)
