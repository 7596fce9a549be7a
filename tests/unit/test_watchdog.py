"""A loop that hangs ends its process; one that is busy, idle or was stopped for a while does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from meshgate.runtime.watchdog import HUNG, Watchdog

PATIENCE = 10.0


async def test_a_hanging_loop_is_told_with_where_it_hangs() -> None:
    released = threading.Event()
    said: list[str] = []

    def end(where: str) -> None:
        said.append(where)
        released.set()

    watchdog = Watchdog(0.05, end)
    watchdog.start()
    assert released.wait(PATIENCE), "the loop hung, and nobody said so"
    watchdog.stop()
    assert said == ["threading.wait"]


async def test_a_loop_that_turns_is_left_alone() -> None:
    said: list[str] = []
    watchdog = Watchdog(1.0, said.append)
    watchdog.start()
    await asyncio.sleep(1.6)  # three looks
    watchdog.stop()
    assert said == []
    assert not watchdog._thread.is_alive()


def test_a_process_is_ended_with_a_status_of_its_own_and_one_line() -> None:
    program = """
import asyncio, threading
from meshgate.runtime.watchdog import Watchdog
async def main():
    Watchdog(0.05).start()
    threading.Event().wait()
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == HUNG
    assert "the event loop hangs" in ended.stderr
    assert "Traceback" not in ended.stderr
