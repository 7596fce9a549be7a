"""`meshgate up` with real processes in place of the models: ready, a death, a port that is taken, the end."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import certs
from meshgate.runtime.config import ConfigError
from meshgate.supervisor import valkey
from meshgate.supervisor.mesh import Mesh
from meshgate.supervisor.paths import PORTS, STORE, Layout, service_of
from tests.integration.supervisor.test_child import alive
from tests.support.fixtures.waiting import until
from tests.support.network.ports import free_ports

# A part that says of itself what a real one does, over mutual TLS, without a model.
PART = """
import asyncio, signal, sys
import meshgate.rpc.tls13
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from meshgate.rpc import tls
name, listen, certs = sys.argv[1:]

async def main():
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in ("", "Generation", "Embedding", "Classification"):
        await servicer.set(f"meshgate.v1.{service}Service" if service else "", health_pb2.HealthCheckResponse.SERVING)
    files = {"certificate": f"{certs}/{name}.pem", "key": f"{certs}/{name}-key.pem", "ca": f"{certs}/ca.pem"}
    server.add_secure_port(listen, tls.server_credentials(tls.TlsConfig(**files)))
    await server.start()
    await stopping.wait()
    await server.stop(0)

asyncio.run(main())
"""


class Modelless(Layout):
    """A layout whose processes load nothing."""

    def command(self, name: str) -> list[str]:
        if name == STORE:
            return super().command(name)
        return [sys.executable, "-c", PART, service_of(name), self.target(name), str(self.home / "certs")]


class Running:
    """A mesh and what it has said."""

    def __init__(self, home: Path, replicas: Sequence[str] = (), **more: Any) -> None:
        certs.ensure(home)
        (home / "logs").mkdir()
        parts = (*PORTS, *replicas)
        self.layout = Modelless(home, home, dict(zip(parts, free_ports(len(parts)), strict=True)), **more)
        self.file = io.StringIO()
        self.mesh = Mesh(self.layout, Console(file=self.file, width=200))

    def said(self, text: str, times: int = 1) -> Callable[[], bool]:
        return lambda: self.file.getvalue().count(text) >= times

    def pid(self, name: str) -> int:
        pid = self.mesh.children[name].pid
        assert pid is not None
        return pid

    def pids(self) -> list[int]:
        return [child.pid for child in self.mesh.children.values() if child.pid is not None]


@asynccontextmanager
async def running(home: Path, replicas: Sequence[str] = (), **more: Any) -> AsyncIterator[Running]:
    """A mesh that was told to stop, as by Ctrl-C, when we leave; it leaves no process."""
    made = Running(home, replicas, **more)
    task = asyncio.create_task(made.mesh.run())
    try:
        await until(made.said("ready on"), 60)
        yield made
    finally:
        pids = made.pids()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(task, 60)
        assert not any(alive(pid) for pid in pids)
        assert made.file.getvalue().endswith("stopped\n")


async def test_it_is_ready_once_and_stops_without_a_trace(tmp_path: Path) -> None:
    async with running(tmp_path) as mesh:
        assert len(set(mesh.pids())) == 4
        for name in PORTS:
            assert mesh.said(f"{name} serving after")()


async def test_one_that_is_killed_comes_back_and_is_said_to(tmp_path: Path) -> None:
    async with running(tmp_path) as mesh:
        before = mesh.pid("embedding")
        os.kill(before, signal.SIGKILL)
        await until(mesh.said("embedding died (signal SIGKILL), starting it again in"), 60)
        await until(mesh.said("embedding serving after", 2), 60)
        assert mesh.pid("embedding") != before
        assert mesh.said("ready on")()


async def test_replicas_and_a_store_are_parts_like_others(tmp_path: Path) -> None:
    store = tmp_path / "v.sock"
    async with running(tmp_path, ("generation-2", "embedding-2"), store=store, workers=2) as mesh:
        assert len(set(mesh.pids())) == 7
        for name in ("generation-2", "embedding-2", STORE):
            assert mesh.said(f"{name} serving")()
            assert mesh.said(f"{name} listens on {mesh.layout.where(name)}")()
        assert await valkey.answers(store)
        for name in ("generation-2", STORE):
            before = mesh.pid(name)
            os.kill(before, signal.SIGKILL)
            await until(mesh.said(f"{name} died (signal SIGKILL), starting it again in"), 60)
            await until(mesh.said(f"{name} serving", 2), 60)
            assert mesh.pid(name) != before
    assert all(line.startswith("{") for line in mesh.layout.log(STORE).read_text().splitlines())


REFUSING = """
import logging, sys
from meshgate.runtime.logs import log; from meshgate.runtime import process
log.configure("embedding")
print("a library says so", file=sys.stderr)
for line in ("embedding.toml: model.source: no such directory", "embedding.toml: engine.max_batch: at least 1"):
    logging.getLogger("meshgate.runtime.process").error(line)
sys.exit(process.BAD_CONFIG)
"""


class Misconfigured(Modelless):
    """A layout of which two parts can't use their configuration."""

    def command(self, name: str) -> list[str]:
        refusing = name in ("embedding", "gateway")
        return [sys.executable, "-c", REFUSING] if refusing else super().command(name)


async def test_misconfigured_parts_end_the_mesh_and_all_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.Modelless", Misconfigured)
    made = Running(tmp_path)
    with pytest.raises(ConfigError) as caught:
        await asyncio.wait_for(made.mesh.run(), 60)
    why = "embedding.toml: model.source: no such directory; embedding.toml: engine.max_batch: at least 1"
    said = [f"embedding: {why}", f"gateway: {why}"]
    assert str(caught.value) in {"; ".join(said), "; ".join(reversed(said))}
    assert not made.said("starting it again")()
    assert made.file.getvalue().endswith("stopped\n")
    assert not any(alive(pid) for pid in made.pids())


class Worsening(Modelless):
    """A layout of which one part serves, and finds its configuration broken when it starts the next time."""

    def command(self, name: str) -> list[str]:
        if name != "embedding":
            return super().command(name)
        mark = self.home / "mark"
        once = f"import os\nif os.path.exists({str(mark)!r}):\n exec({REFUSING!r})\nopen({str(mark)!r}, 'w').close()\n"
        plain = super().command(name)
        return [*plain[:2], once + plain[2], *plain[3:]]


async def test_one_that_has_served_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Modelless", Worsening)
    async with running(tmp_path) as mesh:
        os.kill(mesh.pid("embedding"), signal.SIGKILL)
        await until(mesh.said("embedding died (status 2), starting it again in"), 60)
        (tmp_path / "mark").unlink()
        await until(mesh.said("embedding serving after", 2), 60)


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as mesh:
        os.kill(mesh.pid("generation"), signal.SIGSTOP)  # one that hangs
        os.kill(os.getpid(), signal.SIGINT)
        await until(mesh.said("stopping"))
        # Leaving sends the second, which must end it long before the grace of 25 s for one that hangs.


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    for name in PORTS:
        (tmp_path / f"{name}.toml").touch()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        layout = Layout(
            tmp_path, tmp_path, {**dict(zip(PORTS, free_ports(len(PORTS)), strict=True)), "embedding": port}
        )
        with pytest.raises(ConfigError, match=rf"port {port} of embedding is taken; .* --embedding-port"):
            layout.check()


def test_a_port_is_for_one_part(tmp_path: Path) -> None:
    for name in PORTS:
        (tmp_path / f"{name}.toml").touch()
    [port] = free_ports(1)
    with pytest.raises(ConfigError, match=f"port {port} is given to 4 parts"):
        Layout(tmp_path, tmp_path, dict.fromkeys(PORTS, port)).check()
