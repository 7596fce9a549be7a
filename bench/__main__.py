"""`make bench-gateway`: the gateway between a bare pass-through and Envoy; same backend, same bytes, one run."""

from __future__ import annotations

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

import certs
from bench import contender, table
from bench.backend import CHUNKS
from bench.rounds import Measurement, Plan
from bench.table import Table
from gateway.commands import dev_issuer

_CALLERS: Final = (1, 64)
_STREAMS: Final = 8
_WHOLE: Final = Plan(rounds=5, seconds=2.0)
_QUICK: Final = Plan(rounds=2, seconds=0.7)
_WIDTH: Final = 140


def main() -> int:
    """Starts everything in a state directory of its own, measures, and stops it."""
    flags = _arguments().parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as made, ExitStack() as stack:
        os.environ["MESHGATE_HOME"] = made
        home = Path(made)
        certs.ensure(home)
        dev_issuer.ensure_key(home)
        room = contender.open_room(home, stack)
        chosen = contender.start(room, flags.only or contender.ALL)
        for item in chosen:
            sys.stderr.write(f"{item.name}: pid {', '.join(map(str, item.pids)) or '-'}\n")
        try:
            tables = asyncio.run(_measure(room, chosen, flags))
        except Exception:
            _show_logs(home)
            raise
    _print(tables, markdown=flags.markdown)
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a first impression: two short rounds")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--seconds", type=float, help="how long each time")
    parser.add_argument("--callers", type=int, action="append", help="at once; may be given again (1 and 64)")
    parser.add_argument(
        "--only", choices=contender.ALL, action="append", metavar="NAME", help=f"of {', '.join(contender.ALL)}"
    )
    parser.add_argument("--no-streams", action="store_true", help="unary calls alone")
    parser.add_argument("--markdown", action="store_true", help="print what RESULTS.md has")
    return parser


def _plan(flags: argparse.Namespace) -> Plan:
    plan = _QUICK if flags.quick else _WHOLE
    return Plan(flags.rounds or plan.rounds, flags.seconds or plan.seconds)


async def _measure(room: contender.Room, chosen: list[contender.Contender], flags: argparse.Namespace) -> list[Table]:
    titles = {item.name: item.title for item in chosen}
    measurement = Measurement(room, chosen, _plan(flags))
    for item in await measurement.ready():
        sys.stdout.write(f"left out: {item.title}: it decides nothing in its store\n\n")
    tables = [table.calls(await measurement.unary(count), titles, count) for count in flags.callers or _CALLERS]
    streamed = [name for name in contender.STREAMED if name in titles]
    if streamed and not flags.no_streams:
        tables.append(table.streams(await measurement.streams(streamed, _STREAMS), titles, _STREAMS, CHUNKS))
    await measurement.close()
    return tables


def _print(tables: Iterable[Table], *, markdown: bool) -> None:
    console = Console(width=_WIDTH) if not sys.stdout.isatty() else Console()
    for item in tables:
        if markdown:
            sys.stdout.write(item.markdown() + "\n")
        else:
            console.print(item.drawn())


def _show_logs(home: Path) -> None:
    """The end of every log, which goes away with the state directory."""
    for log in sorted(home.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-5:]
        sys.stderr.write("".join(f"{log.name}: {line}\n" for line in lines))


if __name__ == "__main__":
    uvloop.install()
    sys.exit(main())
