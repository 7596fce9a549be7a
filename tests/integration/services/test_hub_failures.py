"""What really kept a model from being fetched is what the error says; caches lie in the mesh's state directory.

Each attempt is a process of its own, for the libraries read their environment when they are imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.network.hub_server import REPOSITORY, hub

FETCH = """
import sys
from meshgate.runtime.config import ConfigError
from services.models import hub
from services.models.config import SourceConfig
try:
    config = SourceConfig(source=sys.argv[1], name="m", download="download" in sys.argv)
    print(hub.fetched(config, "model", ["*.json"]))
except ConfigError as error:
    sys.exit(str(error))
"""
NO_HOME = "/proc/nonexistent"
"""Not even root can make it."""


def fetch(home: Path, *flags: str, source: str = REPOSITORY, **environment: str) -> tuple[int, str]:
    """The exit status, and what was said: where the model is, or why it is nowhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("HF_", "XDG_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH, source, *flags],
        env={**kept, "HOME": NO_HOME, "MESHGATE_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "2", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout or done.stderr).strip()
    assert "\n" not in said, said
    return done.returncode, said


@contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    """A hub that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {}, "the hub does not accept the token: check HF_TOKEN"),
        (401, {"X_Error_Code": "RepoNotFound"}, "the hub has no such model, or shows it to nobody without a token"),
        (404, {"X_Error_Code": "RepoNotFound"}, "the hub has no such model, or shows it to nobody without a token"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "the hub has no revision main of it"),
        (403, {"X_Error_Code": "GatedRepo"}, "the hub gives it only to those who accepted its terms"),
        (404, {}, "answers with HTTP status 404"),
        (418, {}, "answers with HTTP status 418"),
    ],
)
def test_an_answer_of_the_hub(tmp_path: Path, status: int, headers: dict[str, str], said: str) -> None:
    with answering(status, **headers) as endpoint:
        found = fetch(tmp_path, "download", HF_ENDPOINT=endpoint)
    assert found[0] == 1
    assert said in found[1]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "(127.0.0.1:9) was not reached: Connection refused"),
        ({"HF_ENDPOINT": "http://u:secret@127.0.0.1:9"}, "(127.0.0.1:9) was not reached: Connection refused"),
        ({"HF_ENDPOINT": "http://hub.invalid"}, "(hub.invalid) was not reached: "),
        ({"https_proxy": "http://127.0.0.1:9"}, "was not reached by the proxy of https_proxy: Connection refused"),
        ({"ALL_PROXY": "http://127.0.0.1:9"}, "was not reached by the proxy of ALL_PROXY: Connection refused"),
        ({"all_proxy": "socks5h://127.0.0.1:9"}, "a package is missing: "),
        ({"HF_HUB_OFFLINE": "1"}, "the hub is not reached, because HF_HUB_OFFLINE is set"),
    ],
)
def test_a_hub_that_is_not_reached(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    status, found = fetch(tmp_path, "download", **environment)
    assert status == 1
    assert said in found
    assert "secret" not in found


def test_a_cache_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "home").touch()
    with hub(tmp_path / "model") as server:
        status, said = fetch(tmp_path / "home", "download", HF_ENDPOINT=server.endpoint)
    assert status == 1
    assert f"the cache can't be written: {tmp_path}/home/cache" in said
    assert "MESHGATE_HOME" in said


def test_what_is_no_name_of_a_model(tmp_path: Path) -> None:
    status, said = fetch(tmp_path, "download", source="no such/name!")
    assert status == 1
    assert "owner/name" in said


def test_without_a_home_a_model_is_fetched_into_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    home = tmp_path / "home"
    with hub(tmp_path / "model") as server:
        status, said = fetch(home, "download", HF_ENDPOINT=server.endpoint)
    assert (status, Path(said).is_relative_to(home / "cache" / "huggingface" / "hub")) == (0, True)
    assert fetch(home) == (0, said)


def test_a_model_that_the_user_has_already_is_found_and_the_users_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    user = tmp_path / "user"
    with hub(tmp_path / "model") as server:
        personal = {"HF_HOME": str(user / ".cache" / "huggingface")}
        assert fetch(tmp_path / "home", "download", HF_ENDPOINT=server.endpoint, **personal)[0] == 0
    before = sorted(user.rglob("*"))
    status, said = fetch(tmp_path / "home", HOME=str(user))
    assert (status, Path(said).is_relative_to(user)) == (0, True)
    assert sorted(user.rglob("*")) == before


@pytest.mark.parametrize("setting", [{}, {"TORCH_HOME": "/own"}, {"HF_HUB_CACHE": "/own"}], ids=str)
def test_every_cache_lies_in_the_state_directory_unless_the_environment_says_otherwise(
    tmp_path: Path, setting: dict[str, str]
) -> None:
    script = "import os, services.common.environment as e; print(*(os.environ.get(name, '') for name in e._CACHES))"
    bare = {"PATH": os.environ["PATH"], "HOME": NO_HOME, "MESHGATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**bare, **setting}, capture_output=True, text=True, check=True
    )
    elsewhere = [path for path in done.stdout.strip("\n").split(" ") if not path.startswith(f"{tmp_path}/cache/")]
    assert elsewhere == ([] if not setting else ["/own"] if "TORCH_HOME" in setting else [""])
