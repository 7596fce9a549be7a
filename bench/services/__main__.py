"""`make bench-services`: the model services through the whole secure path beside their peers, in one run."""

from __future__ import annotations

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

import certs
from bench.rounds import Plan
from bench.services import measured
from bench.services.contenders.place import Place
from bench.table import Table
from gateway.commands import dev_issuer
from services.common import device

_WHOLE: Final = Plan(rounds=5, seconds=6.0)
_QUICK: Final = Plan(rounds=2, seconds=2.0)
_WIDTH: Final = 160
_NOTES: Final = """\
The load shares the cores with what it calls. Meshgate: gateway and service as shipped, limits counted but never
reached; TLS 1.3 with a token in, audit with fsync, mutual TLS between the two; each caller is a tenant of its own, for
one tenant alone does not get the guests' row. Peers: plain HTTP or gRPC, nobody asked who they are. OpenMP threads of
servers and engines soon sleep in a wait. No server: a process of its own that has the cores alone and is told what to
do; its threads spin unless OMP_WAIT_POLICY says otherwise. Everybody has the same number format and one thread a core.
CPU and RSS are the server's own processes'; ratios are of the same round.
"""


def main() -> int:
    """Starts everything in a state directory of its own, measures, and stops it."""
    flags = _arguments().parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        os.environ["MESHGATE_HOME"] = made
        certs.ensure(Path(made))
        dev_issuer.ensure_key(Path(made))
        try:
            asyncio.run(_run(Path(made), flags))
        except BaseException:
            _show_logs(Path(made))
            raise
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.services", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first impression: two short rounds")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--seconds", type=float, help="how long each time")
    names = (*measured.ALL, *measured.CONTENDERS)
    parser.add_argument(
        "--only", choices=names, action="append", metavar="NAME", help=f"tables and contenders: of {', '.join(names)}"
    )
    parser.add_argument("--device", default="cpu", help="cuda: random weights of real shapes, too")
    parser.add_argument("--markdown", action="store_true", help="print what RESULTS.md has")
    return parser


def _plan(flags: argparse.Namespace) -> Plan:
    plan = _QUICK if flags.quick else _WHOLE
    return Plan(flags.rounds or plan.rounds, flags.seconds or plan.seconds)


async def _run(home: Path, flags: argparse.Namespace) -> None:
    running = asyncio.current_task()
    if running is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with ExitStack() as stack:
        where = device.device_of(flags.device)
        dtype = str(device.dtype_of("auto", where)).removeprefix("torch.")
        place = Place(home, stack, flags.device, dtype)
        sys.stdout.write(f"{place.device}, {place.dtype}\n\n")
        chosen: Sequence[str] = flags.only or ()
        tables = [name for name in chosen if name in measured.ALL] or list(measured.ALL)
        only = [name for name in chosen if name in measured.CONTENDERS]
        async for table in measured.measure(place, _plan(flags), tables, only):
            _print(table, markdown=flags.markdown)
        sys.stdout.write(_NOTES)
        for note in dict.fromkeys(place.notes):
            sys.stdout.write(f"{note}\n")


def _print(table: Table, *, markdown: bool) -> None:
    if markdown:
        sys.stdout.write(table.markdown() + "\n")
    else:
        (Console(width=_WIDTH) if not sys.stdout.isatty() else Console()).print(table.drawn())
    sys.stdout.flush()


def _show_logs(home: Path) -> None:
    """The end of every log, which goes away with the state directory."""
    for log in sorted(home.glob("**/*.log")):
        lines = log.read_text(errors="replace").splitlines()[-5:]
        sys.stderr.write("".join(f"{log.name}: {line}\n" for line in lines))


if __name__ == "__main__":
    uvloop.install()
    sys.exit(main())
