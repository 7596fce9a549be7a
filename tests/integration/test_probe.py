"""The health probe of containers against a real server."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from meshgate.runtime import probe
from tests.integration import mesh as meshes
from tests.integration.doubles import ScriptedApplication

ITSELF = "spiffe://meshgate.local/embedding"

CONFIG = """
[server]
listen = "0.0.0.0:{port}"

[server.tls]
certificate = "{certs}/embedding.pem"
key = "{certs}/embedding-key.pem"
ca = "{certs}/ca.pem"

[server.peers]
"/*" = []

[engine]
max_batch = 1
"""


async def probed(config: Path, *arguments: str) -> tuple[int | None, str]:
    """The exit status and what was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meshgate.runtime.probe", "--config", str(config), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode().splitlines()[-1]


async def test_it_tells_who_serves_from_who_does_not(tmp_path: Path) -> None:
    meshes.prepare(tmp_path)
    path = tmp_path / "embedding.toml"
    peers = {"/grpc.health.v1.Health/*": [ITSELF]}
    async with meshes.serving(tmp_path, "embedding", ScriptedApplication(), peers=peers) as server:
        path.write_text(CONFIG.format(port=server.port, certs=tmp_path / "certs"))
        assert await probed(path) == (0, "SERVING")
        assert await probed(path, "--service", "meshgate.v1.EmbeddingService") == (0, "SERVING")
        assert await probed(path, "--service", "absent") == (1, "NOT_FOUND")
    assert await probed(path) == (1, "UNAVAILABLE")


async def test_a_configuration_that_is_none_is_said(tmp_path: Path) -> None:
    status, said = await probed(tmp_path / "absent.toml")
    assert (status, said.rpartition(": ")[2]) == (2, "No such file or directory")


@pytest.mark.parametrize("listen", ["0.0.0.0:8443", "[::]:8443", "gateway:8443", ":8443"])
def test_it_asks_on_this_machine(listen: str) -> None:
    assert probe.target(listen) == "127.0.0.1:8443"
