"""`python -m services.generation --config FILE`: runs the generation service until SIGTERM."""

from __future__ import annotations

import argparse
import os
import sys

# Read when torch loads its OpenMP. Its threads otherwise spin while they wait for each other, and where cores are
# shared with other processes they spin while whom they wait for cannot run: measured, steps became ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import meshgate.runtime.tls13  # noqa: F401 - before grpc
from meshgate.runtime import config, process
from meshgate.runtime.server import serve
from services.generation import app
from services.generation.config import GenerationConfig


def main() -> int:
    parser = process.arguments("services.generation")
    return process.run("generation", lambda: _serve(parser.parse_args()))


async def _serve(flags: argparse.Namespace) -> int:
    settings = config.load(flags.config, GenerationConfig)
    server = settings.server if flags.listen is None else settings.server.model_copy(update={"listen": flags.listen})
    return await serve(server, app.build(settings))


if __name__ == "__main__":
    sys.exit(main())
