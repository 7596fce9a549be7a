"""A stub in a language whose runtime is not ours: examples/node makes an authenticated streaming call."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.commands import dev_issuer
from tests.e2e.conftest import Up

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("npm") is None, reason="Node.js is not installed"),
]

_EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "node"


def run(up: Up, folder: Path, token: str) -> subprocess.CompletedProcess[str]:
    ca = str(up.home / "certs" / "ca.pem")
    environment = {**up.environment, "MESHGATE_TOKEN": token, "MESHGATE_CA": ca}
    return subprocess.run(
        ["node", "stream.js", "Gravity is"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example and the contract, installed in a place of their own."""
    root = tmp_path_factory.mktemp("node")
    folder = root / "examples" / "node"
    shutil.copytree(_EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(_EXAMPLE.parent.parent / "protos", root / "protos")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


def test_an_authenticated_stream(up: Up, example: Path) -> None:
    done = run(up, example, dev_issuer.development_token(up.home))
    assert done.returncode == 0, done.stderr
    text, usage = done.stdout.strip().rsplit("\n", 1)
    assert text
    assert '"outputTokens":20' in usage


def test_without_a_token(up: Up, example: Path) -> None:
    done = run(up, example, "nonsense")
    assert done.returncode == 1
    assert "UNAUTHENTICATED" in done.stderr
