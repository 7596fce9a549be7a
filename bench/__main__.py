"""`make bench`: the gateway against a bare pass-through, same backend, same bytes, one run, several rounds."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import uvloop
from rich.console import Console
from rich.table import Table

import certs
from gateway import issuer
from meshgate.runtime import channel
from meshgate.v1 import embedding_pb2

_METHOD = "/meshgate.v1.EmbeddingService/Embed"
_REQUEST = embedding_pb2.EmbedRequest(inputs=["a sentence of some eight words or so"]).SerializeToString()
_ROUNDS = 5
_SECONDS = 2.0
_START_SECONDS = 120.0
_CONFIG = Path(__file__).parent.parent / "deploy" / "config" / "gateway.toml"


@dataclass(frozen=True)
class Round:
    """One measurement of one server."""

    calls_per_second: float
    cpu_us: float
    """CPU time of the server for each call."""
    p50_ms: float
    p99_ms: float


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(*arguments: str) -> Iterator[int]:
    """A server process; yields its pid."""
    with subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            yield process.pid
        finally:
            process.terminate()


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has taken, from /proc (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(opened: Any, metadata: tuple[tuple[str, str], ...], callers: int) -> list[float]:
    """Calls for a while from so many callers; returns the seconds each call took."""
    call = opened.unary_unary(_METHOD)
    until = time.perf_counter() + _SECONDS
    took: list[float] = []

    async def caller() -> None:
        while (start := time.perf_counter()) < until:
            await call(_REQUEST, metadata=metadata, timeout=10)
            took.append(time.perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took


async def measure(opened: Any, metadata: tuple[tuple[str, str], ...], pid: int, callers: int) -> Round:
    """One round against one server."""
    cpu, start = cpu_seconds(pid), time.perf_counter()
    took = sorted(await load(opened, metadata, callers))
    elapsed, used = time.perf_counter() - start, cpu_seconds(pid) - cpu
    return Round(len(took) / elapsed, used / len(took) * 1e6, median(took) * 1e3, took[int(len(took) * 0.99)] * 1e3)


async def answered(opened: Any, metadata: tuple[tuple[str, str], ...]) -> None:
    """Returns once a server, and what is behind it, has started and answers. Raises TimeoutError."""
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                await opened.unary_unary(_METHOD)(_REQUEST, metadata=metadata, timeout=5, wait_for_ready=True)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.2)
            else:
                return


async def rounds(home: Path, targets: dict[str, tuple[int, int]], callers: int) -> dict[str, list[Round]]:
    """Every server in turn, again and again, so that a slow minute of the machine hits all of them."""
    credentials = grpc.ssl_channel_credentials((home / "certs" / "ca.pem").read_bytes())
    token = issuer.mint(home, tenant="bench", subject="bench", scopes=("embed",), ttl=3600)
    metadata = (("authorization", f"Bearer {token}"),)
    results: dict[str, list[Round]] = {name: [] for name in targets}
    channels: dict[str, Any] = {
        name: channel.open_channel(f"127.0.0.1:{port}", credentials) for name, (port, _) in targets.items()
    }
    for opened in channels.values():
        await answered(opened, metadata)
    for _ in range(_ROUNDS):
        for name, (_, pid) in targets.items():
            results[name].append(await measure(channels[name], metadata, pid, callers))
    for opened in channels.values():
        await opened.close(None)
    return results


def table(results: dict[str, list[Round]], callers: int) -> Table:
    """Medians over the rounds, with the ratio of CPU to the first row."""
    made = Table(title=f"{callers} callers, median of {_ROUNDS} rounds of {_SECONDS:g} s")
    for column in ("", "calls/s", "CPU us/call", "ratio", "p50 ms", "p99 ms"):
        made.add_column(column, justify="right" if column else "left")
    baseline = median(item.cpu_us for item in next(iter(results.values())))
    for name, items in results.items():
        cpu = median(item.cpu_us for item in items)
        made.add_row(
            name,
            f"{median(item.calls_per_second for item in items):,.0f}",
            f"{cpu:.0f}",
            f"{cpu / baseline:.2f}",
            f"{median(item.p50_ms for item in items):.2f}",
            f"{median(item.p99_ms for item in items):.2f}",
        )
    return made


def main() -> None:
    """Starts everything in a state directory of its own, measures, and stops it."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        home = Path(made)
        os.environ["MESHGATE_HOME"] = made
        certs.ensure(home)
        issuer.ensure_key(home)
        backend, bare, gate = free_port(), free_port(), free_port()
        folder = str(home / "certs")
        at = {port: f"127.0.0.1:{port}" for port in (backend, bare, gate)}
        stack.enter_context(server("bench.backend", "--listen", at[backend], "--certs", folder))
        through = ("bench.passthrough", "--listen", at[bare], "--target", at[backend], "--certs", folder)
        targets = {"bare pass-through": (bare, stack.enter_context(server(*through)))}
        ours = (
            "gateway",
            "--config",
            str(_config(home)),
            "--listen",
            at[gate],
            "--backend",
            f"embedding={at[backend]}",
        )
        targets["meshgate, every stage"] = (gate, stack.enter_context(server(*ours)))
        for callers in (1, 64):
            Console().print(table(asyncio.run(rounds(home, targets, callers)), callers))


def _config(home: Path) -> Path:
    """The shipped configuration with limits that a benchmark does not reach."""
    path = home / "gateway.toml"
    path.write_text(re.sub(r"(requests_per_second|burst) = \d+", r"\1 = 1000000", _CONFIG.read_text()))
    return path


if __name__ == "__main__":
    uvloop.install()
    main()
