"""A gateway and a service delete sealing keys whose time is over by themselves, for as long as they run."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from meshgate.sealing import codec, key_renewal
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.valkey import until


def leave(directory: Path) -> Path:
    """A key whose time ended a moment ago, which no process has read."""
    key = codec.RecipientKey.generate(codec.X25519)
    now = time.time_ns() // 1_000_000
    path = directory / f"{key.public.key_id}.json"
    stored = {"suite": int(key.public.suite), "secret": key.to_bytes().hex(), "not_before_ms": 0, "not_after_ms": now}
    path.write_text(json.dumps(stored))
    return path


async def test_keys_end_though_nobody_lists_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_renewal, "_LEAST_SECONDS", 0.01)
    monkeypatch.setattr(key_renewal, "_MOST_SECONDS", 0.02)
    before = asyncio.all_tasks()
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}):
        left = [leave(tmp_path / "keys" / name) for name in ("sealing", "sealing-generation")]
        await until(lambda: not any(path.exists() for path in left))
    tasks = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
    assert "Refresher._run" not in tasks
