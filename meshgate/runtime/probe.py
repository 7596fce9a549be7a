"""`python -m meshgate.runtime.probe --config FILE`: whether the server of this configuration serves. For containers.

Kubernetes' own gRPC probes speak no TLS, and our servers speak nothing else. This one asks as the server itself, with
the certificate of its own configuration, so a service that asks callers for theirs lists itself among those who may ask
for its health. It costs a start of Python, so ask every ten seconds and not every second.
"""

from __future__ import annotations

import meshgate.runtime.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import sys
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import ConfigDict

from meshgate.runtime import config, tls

_SECONDS: Final = 5.0
_LOOPBACK: Final = "127.0.0.1"


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
    parser = argparse.ArgumentParser(prog="python -m meshgate.runtime.probe", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the server")
    parser.add_argument("--listen", metavar="HOST:PORT", help="overrides the configuration's listen address")
    parser.add_argument("--service", default="", help="the full name of one of its gRPC services; default: all of it")
    flags = parser.parse_args()
    try:
        section = config.load(flags.config, _Config).server
        said = _ask(target(flags.listen or section.listen), section.tls, flags.service)
    except (config.ConfigError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{said}\n")
    return 0 if said == "SERVING" else 1


def target(listen: str) -> str:
    """Where this machine reaches a server that listens on `listen`."""
    return f"{_LOOPBACK}:{listen.rpartition(':')[2]}"


def _ask(where: str, identity: tls.TlsConfig, service: str) -> str:
    with grpc.secure_channel(where, tls.channel_credentials(identity)) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


if __name__ == "__main__":
    sys.exit(main())
