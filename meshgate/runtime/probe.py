"""`python -m meshgate.runtime.probe --config FILE`: whether the server of this configuration serves. For containers.

Kubernetes' own gRPC probes speak no TLS, and our servers speak nothing else. This probe uses the certificate of the
server's own configuration. So a service that requires client certificates lists itself among the callers of its health.
Each probe starts Python: probe every ten seconds, not every second.
"""

from __future__ import annotations

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc

# isort: split
import sys
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ConfigDict

from meshgate import terminal
from meshgate.rpc import channel, targets, tls
from meshgate.runtime import config, hardening
from meshgate.runtime.flags import Parser

_SECONDS: Final = 5.0


class _Section(config.Strict):
    """The part of a server section that says where and as whom."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    listen: str
    tls: tls.TlsConfig


class _Config(config.Strict):
    """The part of a configuration that matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    server: _Section


def main() -> int:
    """0 when it serves, 1 when it does not or can't be asked, 2 for a configuration that can't be used."""
    hardening.harden()
    parser = Parser(prog="python -m meshgate.runtime.probe", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the server")
    parser.add_argument("--listen", metavar="HOST:PORT", help="overrides the configuration's listen address")
    parser.add_argument("--service", default="", help="the full name of one of its gRPC services; default: all of it")
    flags = parser.parse_args()
    try:
        section = config.load(flags.config, _Config).server
        said = _ask(targets.reachable(flags.listen or section.listen), section.tls, flags.service)
    except config.ConfigError as error:
        for line in config.located(error, flags.config):
            sys.stderr.write(f"{terminal.line(line)}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"{terminal.line(f'{flags.config}: {config.reason(error)}')}\n")
        return 2
    sys.stdout.write(f"{terminal.line(said)}\n")
    return 0 if said == "SERVING" else 1


def _ask(where: str, identity: tls.TlsConfig, service: str) -> str:
    credentials, options = tls.channel_credentials(identity), _options(identity)
    with grpc.secure_channel(where, credentials, options=options) as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


def _options(identity: tls.TlsConfig) -> channel.Options:
    """The server is expected to present the name of its own certificate, whichever address it listens on."""
    name = own_name(identity.certificate.read_bytes())
    return (*channel.DIRECT, *((("grpc.ssl_target_name_override", name),) if name else ()))


def own_name(pem: bytes) -> str:
    """The first host name in a certificate, else its first IP address, else nothing. Raises ConfigError."""
    try:
        leaf = x509.load_pem_x509_certificate(pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    except ValueError as error:
        raise config.ConfigError("server.tls.certificate: not a PEM certificate") from error
    hosts = [name.replace("*", "any", 1) for name in names.get_values_for_type(x509.DNSName)]
    return next(iter((*hosts, *map(str, names.get_values_for_type(x509.IPAddress)))), "")


if __name__ == "__main__":
    sys.exit(main())
