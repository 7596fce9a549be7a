"""Certificates as X.509-SVIDs (SPIFFE): one URI SAN names the workload, ECDSA P-256, a week of life.

No two leaves have a name in common: a part that holds its own can't stand in for another. So only the gateway's, which
callers of this machine reach, names this machine.

The keys are ECDSA because Meshgate's servers admit TLS 1.3 by admitting no key that is not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs import files
from meshgate.services import GATEWAY, SERVICES

TRUST_DOMAIN: Final = "meshgate.local"
NAMES: Final = (GATEWAY, *SERVICES)
LOCAL: Final = (GATEWAY,)
"""Parts whose leaf names this machine too: localhost and its addresses."""

MESH: Final = "meshgate"
"""The domain of the parts' host names: generation.meshgate. A gateway expects them of its services."""
_THIS_MACHINE: Final = ("localhost",)
_LOOPBACK: Final = ("127.0.0.1", "::1")
_LEAF_LIFE: Final = timedelta(days=7)
_CA_LIFE: Final = timedelta(days=3650)
_BACKDATED: Final = timedelta(minutes=5)
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}", re.ASCII)
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
_CA_NAME: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Meshgate development CA")])


@dataclass(frozen=True)
class Authority:
    """The CA: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(
    home: Path,
    names: Iterable[str] = NAMES,
    *,
    local: Collection[str] = LOCAL,
    life: timedelta = _LEAF_LIFE,
    renew: bool = False,
    now: datetime | None = None,
) -> list[str]:
    """Makes what is missing under `home`/certs: the CA, and for each name `<name>.pem` and `<name>-key.pem` (0600).

    A leaf is kept while more than a third of its life is left, this CA signed it, and it has exactly the names that it
    should have. `renew` replaces it in any case. Leaves in `local` also name this machine. Returns the names of the
    leaves made. Raises ValueError for a name that a SPIFFE ID can't have or that the CA's own files have, and OSError.
    """
    moment = now or datetime.now(UTC)
    wanted = [_checked(name) for name in names]
    folder = home / "certs"
    files.state_directory(home)
    with files.private_directory(folder):
        authority = _load_authority(folder, moment) or _make_authority(folder, moment)
        names = {name: _alternative_names(name, local=name in local) for name in wanted}
        made = [name for name in wanted if renew or not _fresh(folder, name, names[name], authority, moment)]
        for name in made:
            _make_leaf(folder, name, names[name], authority, moment, life)
    return made


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"not a name for a SPIFFE ID: {name!r}")
    if name == "ca" or name.endswith("-key"):
        raise ValueError(f"not a name for a SPIFFE ID here, its files would be another's: {name!r}")
    return name


def _load_authority(folder: Path, now: datetime) -> Authority | None:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):  # TypeError: an encrypted key
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.not_valid_after_utc - now < _LEAF_LIFE:
        return None
    return Authority(certificate, key) if key.public_key() == certificate.public_key() else None


def _make_authority(folder: Path, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    certificate = (
        _builder(_CA_NAME, _CA_NAME, key.public_key(), now, _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    files.write_private(folder / "ca-key.pem", _key_pem(key))
    files.write_public(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(certificate, key)


def _fresh(folder: Path, name: str, names: x509.SubjectAlternativeName, authority: Authority, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}-key.pem").read_bytes(), None)
        certificate.verify_directly_issued_by(authority.certificate)
    except Exception:  # whatever is wrong with it, it is made anew
        return False
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if not _has(certificate, names):
        return False
    return key.public_key() == certificate.public_key() and certificate.not_valid_after_utc - now > life / 3


def _has(certificate: x509.Certificate, names: x509.SubjectAlternativeName) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return found == names


def _make_leaf(
    folder: Path, name: str, names: x509.SubjectAlternativeName, authority: Authority, now: datetime, life: timedelta
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    life = min(life, authority.certificate.not_valid_after_utc - now)  # nothing outlives what signs it
    issuer_key = x509.SubjectKeyIdentifier.from_public_key(authority.key.public_key())
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    # The key first: a reader between the two sees an old certificate with a new key, and tries again.
    files.write_private(folder / f"{name}-key.pem", _key_pem(key))
    files.write_public(folder / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _spiffe_id(name: str) -> str:
    return f"spiffe://{TRUST_DOMAIN}/{name}"


def _alternative_names(name: str, *, local: bool) -> x509.SubjectAlternativeName:
    """The names of a leaf, its host name in the mesh first. Only a lower-case DNS label gets a host name."""
    hosts = [f"{name}.{MESH}", name] if _DNS_LABEL.fullmatch(name) and name not in _THIS_MACHINE else []
    return x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(_spiffe_id(name)),
            *map(x509.DNSName, [*hosts, *(_THIS_MACHINE if local else ())]),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in (_LOOPBACK if local else ())),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
