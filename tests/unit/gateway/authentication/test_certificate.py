"""RFC 8705: the thumbprint of a certificate in a token, and the connection on which a bound token is valid."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import certs
from gateway.authentication import Authenticator, thumbprint
from meshgate.errors import Unauthenticated
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock

# RFC 8705, appendix A: a certificate and what its thumbprint is.
RFC_CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx
ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG
SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ
/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID
SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV
bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY=
-----END CERTIFICATE-----
"""
RFC_THUMBPRINT = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"


@pytest.fixture
def pem(tmp_path: Path) -> bytes:
    certs.ensure(tmp_path, ["gateway"])
    return (tmp_path / "certs" / "gateway.pem").read_bytes()


def test_the_rfcs_own_example() -> None:
    assert thumbprint(RFC_CERTIFICATE) == RFC_THUMBPRINT


def test_it_is_the_digest_of_the_certificate(pem: bytes) -> None:
    certificate = x509.load_pem_x509_certificate(pem)
    expected = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
    leaf = certificate.public_bytes(Encoding.PEM)
    assert thumbprint(leaf) == expected
    assert thumbprint(leaf) == thumbprint(leaf.replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\xff",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"no certificate",
    ],
)
def test_what_is_no_certificate_has_no_name(given: bytes) -> None:
    assert thumbprint(given) is None


def test_a_certificate_is_hashed_once(pem: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    first = thumbprint(pem)
    monkeypatch.setattr(x509, "load_pem_x509_certificate", None)
    assert thumbprint(bytes(bytearray(pem))) == first


def test_a_bound_token_is_good_on_its_connection_alone_cached_or_not(tmp_path: Path, pem: bytes) -> None:
    path = tmp_path / "jwks.json"
    tokens.publish_all(path)
    authenticator: Authenticator = tokens.authenticator(path, Clock())
    token = f"Bearer {tokens.token(cnf={'x5t#S256': thumbprint(pem)})}"
    for _ in range(2):
        assert authenticator.authenticate(token, thumbprint(pem)).subject == "bob"
        for stranger in (None, "", thumbprint(RFC_CERTIFICATE)):
            with pytest.raises(Unauthenticated) as caught:
                authenticator.authenticate(token, stranger)
            assert caught.value.reason == "TOKEN_BINDING"
