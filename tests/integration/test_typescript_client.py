"""The format of sealed calls from another language: examples/typescript seals with public packages, and is answered."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshgate.runtime import metadata
from tests.integration import mesh as meshes
from tests.integration.doubles import ScriptedApplication
from tests.integration.mesh import Mesh
from tests.integration.test_sealed_service import listed

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed"),
]

_ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example and the contract, installed and built in a place of their own."""
    root = tmp_path_factory.mktemp("typescript")
    folder = root / "examples" / "typescript"
    shutil.copytree(_ROOT / "examples" / "typescript", folder, ignore=shutil.ignore_patterns("node_modules", "build"))
    shutil.copytree(_ROOT / "protos", root / "protos")
    for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Mesh, ScriptedApplication]]:
    application = ScriptedApplication()
    async with meshes.mesh(tmp_path, {"generation": application}) as mesh:
        yield mesh, application


async def run(mesh: Mesh, folder: Path, recipient: str, **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *("node", "build/call.js", "a sealed prompt", recipient),
        cwd=folder,
        env={
            **os.environ,
            "MESHGATE_TARGET": f"localhost:{mesh.gateway.port}",
            "MESHGATE_CA": str(mesh.home / "certs" / "ca.pem"),
            "MESHGATE_TOKEN": mesh.token(),
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("recipient", ["gateway", "service"])
async def test_a_sealed_call_with_the_hybrid_suite_is_answered(
    running: tuple[Mesh, ScriptedApplication], example: Path, recipient: str
) -> None:
    mesh, application = running
    status, out, err = await run(mesh, example, recipient)
    assert (status, err) == (0, "")
    assert out.splitlines() == ["a sealed prompt", '{"suite":1,"usage":{"inputTokens":3,"outputTokens":5}}']
    assert application.metadata[metadata.TENANT] == "acme"
    assert mesh.records()[-1]["sealing_key_id"]


async def test_a_pin_picks_the_key_and_so_the_suite(running: tuple[Mesh, ScriptedApplication], example: Path) -> None:
    mesh, _ = running
    status, out, err = await run(mesh, example, "gateway", MESHGATE_PIN=await _fingerprint(mesh))
    assert (status, err) == (0, "")
    assert '"suite":2' in out
    status, _, err = await run(mesh, example, "gateway", MESHGATE_PIN="0" * 64)
    assert (status, err) == (1, "no key to seal to\n")


async def _fingerprint(mesh: Mesh) -> str:
    """Of the gateway's X25519 key."""

    return next(key.fingerprint.hex() for key in await listed(mesh) if not key.service and key.suite == 2)


async def test_a_token_that_is_none_is_a_line(running: tuple[Mesh, ScriptedApplication], example: Path) -> None:
    mesh, _ = running
    status, _, err = await run(mesh, example, "gateway", MESHGATE_TOKEN="nonsense")
    assert status == 1
    assert err.startswith("UNAUTHENTICATED: ")
