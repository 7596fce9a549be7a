"""The health probe of containers against a real server."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from cryptography import x509

from meshgate.runtime import probe
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes

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


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "127.0.0.1:0", "127.0.0.9:0", "[::1]:0", "[::]:0", "localhost:0", "unix:{home}/s", "own"]
)
async def test_it_asks_where_the_server_listens(tmp_path: Path, listen: str) -> None:
    meshes.prepare(tmp_path)
    address = f"{own_address()}:0" if listen == "own" else listen.format(home=tmp_path)
    peers = {"/grpc.health.v1.Health/*": [ITSELF]}
    async with meshes.serving(tmp_path, "embedding", ScriptedApplication(), peers=peers, listen=address) as server:
        where = address if address.startswith("unix") else f"{address.removesuffix(':0')}:{server.port}"
        path = tmp_path / "embedding.toml"
        path.write_text(CONFIG.format(port=1, certs=tmp_path / "certs").replace("0.0.0.0:1", where))
        assert await probed(path) == (0, "SERVING")


def own_address() -> str:
    """The address of the interface by which this machine reaches others, else one of the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_the_name_that_is_expected_is_the_certificates_own(tmp_path: Path) -> None:
    meshes.prepare(tmp_path)
    made = x509.load_pem_x509_certificate((tmp_path / "certs" / "embedding.pem").read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    pem = (tmp_path / "certs" / "embedding.pem").read_bytes()
    assert probe.own_name(pem) == names.get_values_for_type(x509.DNSName)[0]


async def test_a_certificate_that_is_none_is_said(tmp_path: Path) -> None:
    meshes.prepare(tmp_path)
    path = tmp_path / "embedding.toml"
    path.write_text(CONFIG.format(port=1, certs=tmp_path / "certs"))
    (tmp_path / "certs" / "embedding.pem").write_text("junk")
    told = f"{path}: server.tls.certificate: {tmp_path}/certs/embedding.pem: not a PEM certificate"
    assert await probed(path) == (2, told)
