"""`python -m services.classification --config FILE`: runs the classification service until SIGTERM."""

from __future__ import annotations

import argparse
import sys

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc
import services.common.environment  # before the libraries of models
import services.cpu.openmp  # noqa: F401 - before torch

# isort: split
from meshgate.rpc.server import serve
from meshgate.runtime import config, process
from services.classification import app
from services.classification.config import ClassificationConfig


def main() -> int:
    """The entry point of `python -m services.classification`."""
    parser = process.arguments("services.classification")
    flags = parser.parse_args()
    return process.run("classification", flags.config, lambda: _serve(flags))


async def _serve(flags: argparse.Namespace) -> int:
    settings = process.overridden(config.load(flags.config, ClassificationConfig), flags)
    return await serve(settings.server, app.build(settings, flags.config))


if __name__ == "__main__":
    sys.exit(main())
