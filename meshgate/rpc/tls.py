"""Transport security: TLS 1.3 credentials for both ends, reloaded from disk, and the name of the peer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshgate.rpc import tls13
from meshgate.runtime.config import ConfigError, ConfigPath, Strict
from meshgate.runtime.files import bounded_read, file_stamp

SPIFFE: Final = "spiffe://"
_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a PEM file: the CAs of whole operating systems have a quarter of a megabyte."""


class TlsConfig(Strict):
    """PEM files of one identity: its chain (leaf first), its key, and the CAs it believes."""

    certificate: ConfigPath
    """The chain, leaf first. The leaf's key is ECDSA."""
    key: ConfigPath
    """The leaf's private key, not encrypted."""
    ca: ConfigPath
    """The CAs that may vouch for the other side."""
    require_client_certificate: bool = True
    """Whether a caller without a certificate of such a CA is refused in the handshake. Of no meaning in [mesh]."""


class Identity:
    """The PEM files of a TlsConfig, read again when one of them changes."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._stamps: tuple[file_stamp.FileStamp, ...] = ()

    def changed(self) -> bool:
        """Whether a file changed since the last call. True at the first, and while one is gone: `read` says which."""
        try:
            stamps = tuple(map(file_stamp.of, self._paths()))
        except OSError:
            self.forget()
            return True
        changed, self._stamps = stamps != self._stamps, stamps
        return changed

    def forget(self) -> None:
        """Files that could not be used count as changed again, until they can be used."""
        self._stamps = ()

    def read(self) -> tuple[bytes, bytes, bytes]:
        """The certificate chain, the key and the CAs, as PEM. Raises ConfigError for a file that is missing or holds
        something else, and for a key of another certificate.
        """
        certificate, key, ca = (self._file(name) for name in ("certificate", "key", "ca"))
        self._check(certificate, key, ca)
        return certificate, key, ca

    def _file(self, name: str) -> bytes:
        path: Path = getattr(self._config, name)
        try:
            return bounded_read.read(path, _MAX_BYTES)
        except OSError as error:
            raise self._error(name, f"can't be read: {error.strerror}") from error

    def _check(self, certificate: bytes, key: bytes, ca: bytes) -> None:
        chain = self._certificates("certificate", certificate)
        if not any(map(_may_vouch, self._certificates("ca", ca))):
            raise self._error("ca", "none of its certificates is a CA's: name the CA that signed the other side's")
        try:
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise self._error("key", "not an unencrypted private key in PEM") from error
        if private.public_key() != chain[0].public_key():
            raise self._error(
                "key", f"not the key of {self._config.key_of('certificate')}: name the pair of one identity"
            )

    def _certificates(self, name: str, pem: bytes) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise self._error(name, "not a PEM certificate") from error

    def _error(self, name: str, what: str) -> ConfigError:
        return ConfigError(f"{self._config.key_of(name)}: {getattr(self._config, name)}: {what}")

    def _paths(self) -> tuple[Path, Path, Path]:
        return self._config.certificate, self._config.key, self._config.ca


def _may_vouch(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL can end a chain with it: it signs others, or itself."""
    if certificate.subject == certificate.issuer:
        return True
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return False


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """Server credentials that take up rotated files at the next handshake.

    Raises ConfigError when the files can't be read or used, and where they would let TLS 1.2 in.
    With `require_client_certificate` a peer without a certificate of the CA is refused in the handshake.
    """
    identity = Identity(config)

    def configuration() -> grpc.ServerCertificateConfiguration:
        certificate, key, ca = identity.read()
        _require_tls13(config, certificate)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this at every handshake; files half-way through a rotation keep the old certificate.
        try:
            return configuration() if identity.changed() else None
        except ConfigError:
            identity.forget()
            return None

    identity.changed()
    # The stub lacks the None that gRPC documents for "unchanged".
    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], fetch)
    return grpc.dynamic_ssl_server_credentials(configuration(), fetcher, config.require_client_certificate)


def _require_tls13(config: TlsConfig, certificate: bytes) -> None:
    if os.environ.get(tls13.VARIABLE) != tls13.RSA_ONLY:
        raise RuntimeError("meshgate.rpc.tls13 was not imported first")
    if not isinstance(x509.load_pem_x509_certificate(certificate).public_key(), ec.EllipticCurvePublicKey):
        key = config.key_of("certificate")
        raise ConfigError(f"{key}: {config.certificate}: an ECDSA key is required, so that only TLS 1.3 can be spoken")


def channel_credentials(config: TlsConfig) -> grpc.ChannelCredentials:
    """Client credentials of this identity. Raises ConfigError when the files can't be read or used."""
    certificate, key, ca = Identity(config).read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


def spiffe_ids(auth_context: Mapping[str, object]) -> tuple[str, ...]:
    """The SPIFFE IDs that the peer's certificate proves (URI SANs); empty without mutual TLS."""
    names = auth_context.get("peer_spiffe_id") or auth_context.get("x509_subject_alternative_name") or ()
    if not isinstance(names, list | tuple):
        return ()
    decoded = (name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)
    return tuple(name for name in decoded if name.startswith(SPIFFE))
