"""Orders go to a worker and what it did comes back, whatever its libraries print."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.services.clients.callers import NotReady
from bench.services.contenders.contender import Worked

ROOT = Path(__file__).parents[3]
WORK = """
from bench.services.workers import protocol
def work(order):
    print("a library says hello", flush=True)
    turns = protocol.Turns(order)
    asked = [turns.next(caller) for caller in (0, 1, 0)]
    return protocol.Done(len([each for each in asked if each == order.items[0]]), [2.0, order.tokens])

protocol.serve("test", work)
"""


@contextmanager
def worker(code: str) -> Iterator[Worked]:
    """One that runs this code."""
    pipe = subprocess.PIPE
    with subprocess.Popen((sys.executable, "-c", code), stdin=pipe, stdout=pipe, stderr=pipe, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Worked(process.stdin, process.stdout, 1)
        process.kill()


async def test_orders_are_answered_one_by_one() -> None:
    with worker(WORK) as worked:
        await worked.ready()
        load = await worked.load(["first", "second", "third"], 2, 3600.0)
        assert (load.messages, list(load.latencies)) == (1, [1, 2.0])
        assert 0 < load.elapsed < 60
        again = await worked.load(["same", "same", "same"], 1, 0.0)
        assert again.messages == 0  # time was up at once
        await worked.close()


async def test_a_worker_that_ends_is_not_ready() -> None:
    with worker("raise SystemExit") as worked, pytest.raises(NotReady):
        await worked.ready()
