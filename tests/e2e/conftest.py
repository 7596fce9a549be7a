"""One real mesh for all end-to-end tests: `meshgate up`, with the default models, in a state directory of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.network.ports import free_ports

_READY_SECONDS = 300
_STOP_SECONDS = 60
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
NAMES = ("gateway", "generation", "embedding", "classification")


@dataclass
class Up:
    """A running `meshgate up`."""

    home: Path
    ports: Mapping[str, int]
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    heard: threading.Condition = field(default_factory=threading.Condition)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports['gateway']}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MESHGATE_HOME": str(self.home), "MESHGATE_TARGET": self.target, "COLUMNS": "200"}

    def cli(self, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
        """Runs the `meshgate` command as a user would, from another terminal."""
        command = [str(Path(sys.executable).parent / "meshgate"), *arguments]
        return subprocess.run(
            command, env=self.environment, input=said, capture_output=True, text=True, timeout=120, check=False
        )

    def wait_for(self, text: str, seconds: float = _READY_SECONDS, since: int = 0) -> None:
        """Returns once the supervisor said `text`, counting lines from `since`."""
        with self.heard:
            said = self.heard.wait_for(lambda: self._said(text, since) or self.process.poll() is not None, seconds)
            assert said, f"not said: {text}\n" + "".join(self.lines)
            assert self._said(text, since), "".join(self.lines)

    def pid(self, name: str) -> int:
        """The process that listens on a part's port."""
        [pid] = running(f"--listen 127.0.0.1:{self.ports[name]}")
        return pid

    def _said(self, text: str, since: int) -> bool:
        return any(text in line for line in self.lines[since:])

    def listen(self) -> None:
        """Collects what the supervisor says."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.heard:
                self.lines.append(_ESCAPES.sub("", line))
                self.heard.notify_all()
        with self.heard:
            self.heard.notify_all()


def running(text: str) -> list[int]:
    """The processes whose command line has `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            if text in path.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("home")
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    flags = [f"--{name}-port={port}" for name, port in ports.items()]
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "meshgate"), "up", *flags],
        env={**os.environ, "MESHGATE_HOME": str(home), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    mesh = Up(home, ports, process)
    listener = threading.Thread(target=mesh.listen, daemon=True)
    listener.start()
    try:
        mesh.wait_for("ready on")
        yield mesh
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_SECONDS)
        listener.join(_STOP_SECONDS)
        assert process.returncode == 0, "".join(mesh.lines)
        left = [pid for port in ports.values() for pid in running(f"--listen 127.0.0.1:{port}")]
        assert left == [], "processes were left behind"
