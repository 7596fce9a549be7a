"""`python -m services.embedding --config FILE`: runs the embedding service until SIGTERM."""

from __future__ import annotations

import argparse
import sys

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc
import services.common.environment  # noqa: F401 - before the libraries of models

# isort: split
from meshgate.rpc.server import serve
from meshgate.runtime import config, process
from services.embedding import app
from services.embedding.config import EmbeddingConfig


def main() -> int:
    """The entry point of `python -m services.embedding`."""
    parser = process.arguments("services.embedding")
    flags = parser.parse_args()
    return process.run("embedding", flags.config, lambda: _serve(flags))


async def _serve(flags: argparse.Namespace) -> int:
    settings = process.overridden(config.load(flags.config, EmbeddingConfig), flags)
    return await serve(settings.server, app.build(settings, flags.config))


if __name__ == "__main__":
    sys.exit(main())
