"""The poller's pipe, in a process of its own: a poller that already runs keeps what it was made with."""

from __future__ import annotations

import subprocess
import sys

_CALLS = 200
_PROGRAM = f"""
import asyncio
import grpc
from meshgate.rpc.private import poller_wakeup

reads = []
receive = poller_wakeup._End.recv
poller_wakeup._End.recv = lambda end, size: (reads.append(size), receive(end, size))[1]
poller_wakeup.install()

async def main():
    async def echo(request, context):
        return request
    server = grpc.aio.server()
    server.add_registered_method_handlers("a.B", {{"C": grpc.unary_unary_rpc_method_handler(echo)}})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{{port}}") as channel:
        do = channel.unary_unary("/a.B/C")
        assert set(await asyncio.gather(*(do(b"x", timeout=30) for _ in range({_CALLS})))) == {{b"x"}}
    await server.stop(None)

asyncio.run(main())
print(len(reads))
"""


def test_events_that_come_together_wake_the_loop_once() -> None:
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    # A call is five events; were each read by itself, there would be a read for each.
    assert 0 < int(run.stdout) < 4 * _CALLS
