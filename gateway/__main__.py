"""`python -m gateway --config FILE`: runs one gateway, of as many workers as it says, until SIGTERM."""

from __future__ import annotations

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc

# isort: split
import argparse
import asyncio
import signal
import sys
import time

from gateway.app import Gateway
from gateway.config import GatewayConfig
from gateway.workers.shared_port import SharedPort
from gateway.workers.worker_supervisor import WorkerSupervisor
from meshgate.runtime import config, memory_trimming, process
from meshgate.sealing.keyring import Keyring


def main() -> int:
    """The entry point of `python -m gateway`."""
    parser = process.arguments("gateway")
    parser.add_argument(
        "--backend", metavar="NAME=HOST:PORT", action="append", default=[], help="overrides where a service is"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="overrides how many processes share the port")
    parser.add_argument("--store", metavar="URL", help="overrides where the store is")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # for Workers to pass
    flags = parser.parse_args()
    name = "gateway" if flags.worker is None else f"gateway.{flags.worker}"
    return process.run(name, flags.config, lambda: _run(flags))


async def _run(flags: argparse.Namespace) -> int:
    targets = dict(item.partition("=")[::2] for item in flags.backend)
    read = process.overridden(config.load(flags.config, GatewayConfig), flags)
    loaded = read.with_overrides(flags.listen, targets, workers=flags.workers, store=flags.store)
    loaded.check_startable()
    if flags.worker is None and loaded.workers > 1:
        return await _supervise(loaded, flags)
    return await _serve(Gateway(loaded, worker=flags.worker))


async def _supervise(loaded: GatewayConfig, flags: argparse.Namespace) -> int:
    shared = [sys.executable, "-m", "gateway", "--config", str(flags.config), *_passed(flags)]

    def command(number: int, listen: str) -> list[str]:
        return [*shared, "--listen", listen, "--worker", str(number)]

    Keyring(loaded.sealing.keys, lambda: time.time_ns() // 1_000_000)  # or workers would each make their own keys
    return await WorkerSupervisor(
        loaded.workers, SharedPort(loaded.server.listen), loaded.server.drain_seconds, command
    ).run()


def _passed(flags: argparse.Namespace) -> list[str]:
    """The flags that each worker gets too."""
    given = {"--metrics": flags.metrics, "--workers": flags.workers, "--store": flags.store}
    passed = [("--backend", item) for item in flags.backend]
    passed += [(flag, str(value)) for flag, value in given.items() if value is not None]
    return [part for pair in passed for part in pair]


async def _serve(gateway: Gateway) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    trimmed = memory_trimming.start()
    try:
        await gateway.start()
        process.tune_gc()
        await stopping.wait()
    finally:
        trimmed()
        await gateway.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
