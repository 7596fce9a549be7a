"""Transport security: TLS 1.3 credentials for both ends, reloaded from disk, and the name of the peer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from meshgate import stamp
from meshgate.runtime import tls13
from meshgate.runtime.config import ConfigError, Strict

SPIFFE: Final = "spiffe://"


class TlsConfig(Strict):
    """PEM files of one identity: its chain (leaf first), its key, and the CAs it believes."""

    certificate: Path
    key: Path
    ca: Path
    require_client_certificate: bool = True


class Identity:
    """The PEM files of a TlsConfig, read again when one of them changes."""

    def __init__(self, config: TlsConfig) -> None:
        self._config = config
        self._stamps: tuple[stamp.Stamp, ...] = ()

    def changed(self) -> bool:
        """Whether a file changed since the last call. True at the first."""
        stamps = tuple(map(stamp.of, self._paths()))
        changed, self._stamps = stamps != self._stamps, stamps
        return changed

    def read(self) -> tuple[bytes, bytes, bytes]:
        """The certificate chain, the key and the CAs, as PEM."""
        certificate, key, ca = (path.read_bytes() for path in self._paths())
        return certificate, key, ca

    def _paths(self) -> tuple[Path, Path, Path]:
        return self._config.certificate, self._config.key, self._config.ca


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """Server credentials that take up rotated files at the next handshake. Raises OSError when they can't be read, and
    ConfigError where they would let TLS 1.2 in.

    With `require_client_certificate` a peer without a certificate of the CA is refused in the handshake.
    """
    identity = Identity(config)

    def configuration() -> grpc.ServerCertificateConfiguration:
        certificate, key, ca = identity.read()
        _require_tls13(certificate)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this at every handshake; files half-way through a rotation keep the old certificate.
        try:
            return configuration() if identity.changed() else None
        except (OSError, ConfigError):
            return None

    identity.changed()
    # The stub lacks the None that gRPC documents for "unchanged".
    fetcher = cast(Callable[[], grpc.ServerCertificateConfiguration], fetch)
    return grpc.dynamic_ssl_server_credentials(configuration(), fetcher, config.require_client_certificate)


def _require_tls13(certificate: bytes) -> None:
    if os.environ.get(tls13.VARIABLE) != tls13.RSA_ONLY:
        raise ConfigError("tls: meshgate.runtime.tls13 was not imported first")
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
    except ValueError as error:
        raise ConfigError("tls.certificate: not a PEM certificate") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError("tls.certificate: an ECDSA key is required, so that only TLS 1.3 can be spoken")


def channel_credentials(config: TlsConfig) -> grpc.ChannelCredentials:
    """Client credentials of this identity. Raises OSError when the files can't be read."""
    certificate, key, ca = Identity(config).read()
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


def spiffe_ids(auth_context: Mapping[str, object]) -> tuple[str, ...]:
    """The SPIFFE IDs that the peer's certificate proves (URI SANs); empty without mutual TLS."""
    names = auth_context.get("peer_spiffe_id") or auth_context.get("x509_subject_alternative_name") or ()
    if not isinstance(names, list | tuple):
        return ()
    decoded = (name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names)
    return tuple(name for name in decoded if name.startswith(SPIFFE))
