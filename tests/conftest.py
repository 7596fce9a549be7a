"""What every test stands on: TLS 1.3 alone, set before anything imports grpc, and no example with a deadline."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

import meshgate.rpc.tls13  # noqa: F401
import services.cpu.openmp  # noqa: F401 - tests share their cores

# Plain channels of tests go to the loopback, and gRPC asks a proxy even there.
for _variable in ("grpc_proxy", "https_proxy", "http_proxy"):
    os.environ.pop(_variable, None)

# How long an example takes, or making it, is a matter of what else the machine does.
settings.register_profile("meshgate", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("meshgate")
