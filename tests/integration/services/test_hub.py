"""A hub id is fetched into the local cache where the configuration says so, and served from there.

A local server is the hub; in a process of its own, for huggingface_hub reads its environment when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.network.hub_server import COMMIT, REPOSITORY, hub
from tests.tinymodels.bert import build_tiny_bert

LOAD = """
import sys
from meshgate.runtime.config import ConfigError
from services.embedding import model
from services.embedding.config import ModelConfig
try:
    config = ModelConfig(source=sys.argv[1], name="m", dtype="float32", device="cpu", download="download" in sys.argv)
    loaded = model.load(config)
except ConfigError as error:
    sys.exit(str(error))
print(loaded.encoder.dimensions, sorted(loaded.card.prompts))
"""


def load(endpoint: str, home: Path, *flags: str, offline: bool = False) -> tuple[int, str]:
    """The exit status, and what was said last."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, REPOSITORY, *flags],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, (done.stdout or done.stderr).strip().splitlines()[-1]


def test_a_hub_id_is_fetched_once_and_then_served_from_the_cache(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder, home = build_tiny_bert(tmp_path / "model"), tmp_path / "home"
    for name in ("pytorch_model.bin", "modeling.py"):
        (folder / name).write_text("never fetched")
    with hub(folder) as server:
        status, said = load(server.endpoint, home)
        assert (status, "`download = true` would fetch it" in said) == (1, True)
        status, said = load(server.endpoint, home, "download", offline=True)
        assert (status, "not reached" in said) == (1, True)
        assert server.asked == []

        assert load(server.endpoint, home, "download") == (0, "32 ['passage', 'query']")
        assert server.fetched() == {
            str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix in (".json", ".safetensors")
        }
    snapshot = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    assert (snapshot / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert load("http://127.0.0.1:9", home) == (0, "32 ['passage', 'query']")
