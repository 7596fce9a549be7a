"""The port that workers share is theirs alone; what can't be shared or used is said at start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.workers.shared_port import SharedPort
from meshgate.runtime.config import ConfigError
from tests.support.network import mesh as meshes
from tests.support.network.gateway_workers import logged, shipped, spawn


def listening(port: int, *options: int) -> socket.socket:
    """Who listens there with these options. Raises OSError."""
    made = socket.socket()
    try:
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=["chosen by the kernel", "given"])
def port(request: pytest.FixtureRequest) -> int:
    return 0 if request.param == "chosen by the kernel" else free_port()


def test_a_held_port_admits_workers_and_nobody_else(port: int) -> None:
    held = SharedPort(f"127.0.0.1:{port}")
    number = int(held.listen.rpartition(":")[2])
    assert number == port or not port
    for stranger in ((), (socket.SO_REUSEADDR,)):
        with pytest.raises(OSError, match="in use"):
            listening(number, *stranger)
    with pytest.raises(ConfigError, match="another process uses it"):
        SharedPort(f"127.0.0.1:{number}")
    workers = [listening(number, socket.SO_REUSEADDR, socket.SO_REUSEPORT) for _ in range(2)]
    with pytest.raises(ConfigError, match="another process uses it"):
        SharedPort(f"127.0.0.1:{number}")
    for worker in workers:
        worker.close()
    held.close()
    SharedPort(f"127.0.0.1:{number}").close()


def test_it_takes_no_connection_itself(port: int) -> None:
    held = SharedPort(f"127.0.0.1:{port}")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(held.listen.rpartition(":")[2])), timeout=5)
    held.close()


def test_a_port_of_one_who_would_share_is_refused() -> None:
    other = listening(0, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    with other, pytest.raises(ConfigError, match="another process uses it"):
        SharedPort(f"127.0.0.1:{other.getsockname()[1]}")


def test_a_port_with_connections_of_a_former_server_is_free() -> None:
    with listening(0, socket.SO_REUSEADDR) as former:
        number = former.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as caller:
            former.accept()[0].close()  # the server's side closes first, and so keeps TIME_WAIT
            assert caller.recv(1) == b""
    SharedPort(f"127.0.0.1:{number}").close()


@pytest.mark.parametrize("listen", ["unix:/tmp/socket", "8443", "127.0.0.1:https", ""])
def test_what_is_no_host_and_port_is_named(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"server.listen: workers share a host:port"):
        SharedPort(listen)


async def test_a_configuration_that_no_worker_can_use_ends_all(tmp_path: Path) -> None:
    meshes.prepare(tmp_path)
    config = shipped(tmp_path, store=f"unix://{tmp_path}/absent.sock")
    (tmp_path / "certs" / "gateway.pem").write_text("no certificate")
    process = await spawn(tmp_path, config, "--listen", "127.0.0.1:0")
    assert await process.wait() == 2
    told = f"{config}: mesh.certificate: {tmp_path}/certs/gateway.pem: not a PEM certificate"
    assert {line["service"] for line in logged(tmp_path, told)} <= {"gateway.0", "gateway.1"}
    assert logged(tmp_path, told)
