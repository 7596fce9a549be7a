"""The caller, as proven by a verified token. Later stages know nothing else of the caller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller. Made by gateway.authentication alone."""

    tenant: str
    """1 to 128 printable ASCII characters, no space, a letter or digit first: safe in metadata and in keys."""
    subject: str
    """The `sub` claim: printable, 1 to 256 bytes of UTF-8."""
    scopes: frozenset[str]
    token_id_hash: str
    """The first 16 hexadecimal digits of SHA-256 of the token's `jti`, or of the whole token where it has none."""
    expires_at: int
    """The `exp` claim, in seconds since the Unix epoch, without leeway."""
    issuer: str
    confirmation: str | None = None
    """`cnf.x5t#S256` (RFC 8705): the base64url SHA-256 of the certificate the token is bound to, or None."""
