"""What every test stands on: TLS 1.3 alone, set before anything imports grpc."""

from __future__ import annotations

import meshgate.runtime.tls13  # noqa: F401
import services.openmp  # noqa: F401 - tests share their cores
