"""The gateway of the benchmark is the shipped one, before one backend that is all services."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import gateway
from gateway.config import GatewayConfig
from meshgate.runtime import config


def test_its_configuration_is_read_and_expects_the_backends_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    made = config.load(gateway.configure(tmp_path, "meshgate"), GatewayConfig)
    assert {backend.server_name for backend in made.backends.values()} == {"embedding.meshgate"}
    assert made.limits.tenant.requests_per_second == made.limits.principal.requests_per_second == 1_000_000


def test_before_the_real_services_it_expects_the_name_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    made = config.load(gateway.configure(tmp_path, "meshgate", one_backend=False), GatewayConfig)
    names = {name: backend.server_name or f"{name}.meshgate" for name, backend in made.backends.items()}
    assert names == {name: f"{name}.meshgate" for name in ("generation", "embedding", "classification")}
