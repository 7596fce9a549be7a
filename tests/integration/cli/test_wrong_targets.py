"""The command before every wrong target that a person may name, over real sockets: what gRPC says is understood."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh
from tests.support.network.ports import free_ports


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with meshes.mesh(tmp_path / "home", {"generation": ScriptedApplication()}) as mesh:
        yield mesh


async def models(mesh: Mesh, target: str, **environment: str) -> str:
    """What `meshgate models` says on standard error."""
    command = (str(Path(sys.executable).parent / "meshgate"), "--target", target, "--deadline", "20", "models")
    said = {**os.environ, "MESHGATE_HOME": str(mesh.home), **environment}
    process = await asyncio.create_subprocess_exec(
        *command, env=said, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode != 0
    return errors.decode()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(64)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


async def test_each_is_its_own_line(running: Mesh, tmp_path: Path) -> None:
    meshes.prepare(tmp_path / "other")
    [closed] = free_ports(1)
    plain = await asyncio.start_server(_silent, "127.0.0.1", 0)
    port, service = running.gateway.port, running.services["generation"].port
    cases = {
        f"127.0.0.1:{closed}": "can't be reached; is `make up` running?",
        f"127.0.0.1:{service}": "is it the gateway's port, and not a service's?",
        f"127.0.0.1:{plain.sockets[0].getsockname()[1]}": "does not speak TLS as a gateway does",
        f"no-such-host.invalid:{port}": f"there is no such host as no-such-host.invalid:{port}",
    }
    said = await asyncio.gather(*(models(running, target) for target in cases))
    for told, expected in zip(said, cases.values(), strict=True):
        assert expected in told
        assert told.count("\n") == 1
    other = await models(running, running.target, MESHGATE_CA=str(tmp_path / "other" / "certs" / "ca.pem"))
    assert other.endswith(f"{running.target} has no certificate of the CA that --ca or MESHGATE_CA names\n")
    plain.close()
    await plain.wait_closed()
