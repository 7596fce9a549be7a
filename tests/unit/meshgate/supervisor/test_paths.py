"""What keeps a mesh from starting is said before anything is started: one to a directory, ports, configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshgate.runtime.config import ConfigError
from meshgate.state import default_configs
from meshgate.supervisor.lock import exclusive
from meshgate.supervisor.paths import PORTS, Layout


def test_a_state_directory_has_one_mesh(tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / "home"),
        pytest.raises(ConfigError, match=rf"already runs in .* \(process {os.getpid()}\)"),
        exclusive(tmp_path / "home"),
    ):
        pass
    with exclusive(tmp_path / "home"):
        pass


def test_the_gateway_is_told_where_the_services_are(tmp_path: Path) -> None:
    command = Layout(tmp_path, tmp_path, {**PORTS, "embedding": 1234}).command("gateway")
    assert command[1:5] == ["-m", "gateway", "--config", str(tmp_path / "gateway.toml")]
    assert "embedding=127.0.0.1:1234" in command
    assert "generation=127.0.0.1:8451" in command


def test_a_service_is_told_where_to_listen(tmp_path: Path) -> None:
    command = Layout(tmp_path, tmp_path, PORTS).command("embedding")
    assert command[1:3] == ["-m", "services.embedding"]
    assert command[-2:] == ["--listen", "127.0.0.1:8452"]


def test_the_configuration_of_every_part_is_there() -> None:
    assert {path.stem for path in default_configs().glob("*.toml")} >= set(PORTS)


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; --config-dir"):
        Layout(tmp_path, tmp_path, PORTS).check()
