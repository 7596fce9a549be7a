"""The format of sealed calls from another language: examples/typescript seals with public packages, and is answered."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshgate.rpc import metadata
from meshgate.sealing import codec
from tests.integration.sealing.test_sealed_service import listed
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed"),
]

_ROOT = Path(__file__).parents[3]


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


async def run(
    mesh: Mesh, folder: Path, recipient: str, program: str = "call", **environment: str
) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *("node", f"build/{program}.js", "a sealed prompt", recipient),
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


@pytest.mark.parametrize("recipient", ["gateway", "service"])
async def test_a_sealed_stream_comes_in_segments_to_its_last(
    running: tuple[Mesh, ScriptedApplication], example: Path, recipient: str
) -> None:
    mesh, application = running
    application.go_on.set()
    status, out, err = await run(mesh, example, recipient, "stream")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        *("a", "sealed", "prompt"),
        '{"suite":1,"usage":{"inputTokens":3,"outputTokens":5}}',
    ]
    assert mesh.records()[-1]["sealing_key_id"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("012", ""),
        ("01", "the reply was cut off"),
        ("", "the reply was cut off"),
        ("102", "the reply does not open"),
        ("002", "the reply does not open"),
        ("02", "the reply does not open"),
        ("0122", "the reply goes on after its end"),
        ("01L", "the reply does not open"),
    ],
)
async def test_segments_open_in_their_order_and_to_their_last(example: Path, sent: str, said: str) -> None:
    """L is the second segment again, said to be the last."""
    program = """
        import { Replies } from "./build/sealing.js";
        const [key, header, ...segments] = JSON.parse(process.argv[1]);
        const replies = new Replies(Buffer.from(key, "hex"), Buffer.from(header, "hex"));
        try {
          for (const [ciphertext, last] of segments) replies.open({ ciphertext: Buffer.from(ciphertext, "hex"), last });
          replies.close();
        } catch (error) {
          process.stdout.write(error.message);
        }
    """
    key, header = bytes(32), b"header"
    session = codec.RecipientSession(key, header)
    made = [session.seal_response(b"a"), session.seal_response(b""), session.seal_response(None, last=True)]
    segments = {str(number): (each.ciphertext.hex(), each.last) for number, each in enumerate(made)}
    segments["L"] = (segments["1"][0], True)
    given = json.dumps([key.hex(), header.hex(), *(segments[each] for each in sent)])
    process = await asyncio.create_subprocess_exec(
        *("node", "--input-type=module", "-e", program, given), cwd=example, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode()) == (0, said)


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
