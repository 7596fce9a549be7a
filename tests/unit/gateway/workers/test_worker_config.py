"""Workers are refused where limits would not be exact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from meshgate.runtime import config
from meshgate.runtime.config import ConfigError

SHIPPED = Path(__file__).parents[4] / "deploy" / "config" / "gateway.toml"


def load(folder: Path, workers: str, after: str = "") -> GatewayConfig:
    path = folder / "gateway.toml"
    text = re.sub(r"(?m)^workers = .*\n", "", SHIPPED.read_text())
    path.write_text(f"workers = {workers}\n{text}{after}")
    return config.load(path, GatewayConfig)


def test_several_workers_need_a_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workers: more than one need a \[store\]"):
        load(tmp_path, "2")
    assert load(tmp_path, "2", '\n[store]\nurl = "redis://127.0.0.1:6379"\n').workers == 2


def test_one_worker_needs_none(tmp_path: Path) -> None:
    assert load(tmp_path, "1").store is None
    assert config.load(SHIPPED, GatewayConfig).workers == 1


def test_several_replicas_need_a_store(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"limits.replicas: more than one need a \[store\]"):
        load(tmp_path, "1", "\n[limits]\nreplicas = 2\n")
    store = '\n[store]\nurl = "redis://127.0.0.1:6379"\n'
    assert load(tmp_path, "1", f"\n[limits]\nreplicas = 2\n{store}").limits.replicas == 2
    assert load(tmp_path, "1", "\n[limits]\nreplicas = 1\n").store is None


@pytest.mark.parametrize("workers", ["0", "65", "-1", '"many"'])
def test_how_many_has_a_range(tmp_path: Path, workers: str) -> None:
    with pytest.raises(ConfigError, match=r"workers: must be a whole number from 1 to 64"):
        load(tmp_path, workers)
