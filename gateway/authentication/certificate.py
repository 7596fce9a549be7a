"""The thumbprint of a client certificate, as a token that is bound to it names it (RFC 8705, section 3.1)."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

_CACHED: Final = 4096


@lru_cache(maxsize=_CACHED)
def thumbprint(pem: bytes) -> str | None:
    """`x5t#S256` of a PEM certificate: base64url, without padding, of SHA-256 of its DER; None for another text.

    The TLS handshake has accepted the certificate, and gRPC gives it as `x509_pem_cert`. So a caller without a
    certificate can't flood the cache.
    """
    try:
        digest = x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
    except ValueError:
        return None
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
