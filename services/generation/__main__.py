"""`python -m services.generation --config FILE`: runs the generation service until SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc
import services.common.environment  # before the libraries of models
import services.cpu.openmp  # noqa: F401 - before torch

# isort: split
from meshgate.rpc.server import serve
from meshgate.runtime import config, process
from services.generation import app
from services.generation.config import GenerationConfig
from services.generation.parallel import ranks


def main() -> int:
    """The entry point of `python -m services.generation`."""
    parser = process.arguments("services.generation")
    flags = parser.parse_args()
    return process.run("generation", flags.config, lambda: _serve(flags))


async def _serve(flags: argparse.Namespace) -> int:
    settings = process.overridden(config.load(flags.config, GenerationConfig), flags)
    parts = settings.engine.tensor_parallel
    ranks.check(parts)
    if parts == 1:
        return await serve(settings.server, app.build(settings, path=flags.config))
    met = ranks.Ranks(parts)
    if met.rank:
        return _follow(settings, met)
    ended = await serve(settings.server, app.build(settings, met))
    if ended == 0:  # else there may be nobody to say goodbye to
        met.close()
    return ended


def _follow(settings: GenerationConfig, met: ranks.Ranks) -> int:
    """Signals are for the first rank, which drains; the others are needed until it has."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return app.follow(settings, met)


if __name__ == "__main__":
    sys.exit(main())
