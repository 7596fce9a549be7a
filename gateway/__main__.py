"""`python -m gateway --config FILE`: runs one gateway until SIGTERM."""

from __future__ import annotations

import meshgate.runtime.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import asyncio
import signal
import sys

import uvloop

from gateway.app import Gateway
from gateway.config import GatewayConfig
from meshgate.runtime import config, process


def main() -> int:
    parser = process.arguments("gateway")
    parser.add_argument(
        "--backend", metavar="NAME=HOST:PORT", action="append", default=[], help="overrides where a service is"
    )
    return process.run("gateway", lambda: _serve(parser.parse_args()))


async def _serve(flags: argparse.Namespace) -> int:
    targets = dict(item.partition("=")[::2] for item in flags.backend)
    gateway = Gateway(config.load(flags.config, GatewayConfig).with_overrides(flags.listen, targets))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        await gateway.start()
        await stopping.wait()
    finally:
        await gateway.stop()
    return 0


if __name__ == "__main__":
    uvloop.install()
    sys.exit(main())
