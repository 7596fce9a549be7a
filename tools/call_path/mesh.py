"""A mesh whose processes say which functions they entered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

Entered = set[tuple[str, str]]
"""Files by their path in the checkout, and functions by their qualified name."""

_RECORDER: Final = Path(__file__).parent / "recorder"
_READY: Final = "ready on "
_GENERATED: Final = "_pb2"
_STOP_S: Final = 60
_ANSWER_S: Final = 10


class Mesh:
    """`meshgate up` of a checkout, in a state directory of its own, with the recorder in every process."""

    def __init__(self, tree: Path, folder: Path, offset: int) -> None:
        self._tree = tree
        self._meshgate = str(tree / ".venv" / "bin" / "meshgate")
        self._sockets = folder / "sockets"
        self._sockets.mkdir()
        self._environment = {**os.environ, "MESHGATE_HOME": str(folder / "state")}
        recorded = {"PYTHONPATH": f"{_RECORDER}{os.pathsep}{tree}", "CALL_PATH_SOCKETS": str(self._sockets)}
        self._up = subprocess.Popen(
            [self._meshgate, "up", "--offset", str(offset)],
            cwd=tree,
            env={**self._environment, **recorded},
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        """Waits until the mesh is ready. Raises SystemExit if it ends instead; `meshgate up` has then printed why."""
        try:
            self._environment["MESHGATE_TARGET"] = self._target()
        except BaseException:
            self._stop()
            raise
        return self

    def _target(self) -> str:
        assert self._up.stdout is not None
        for line in self._up.stdout:
            if line.startswith(_READY):
                return line.removeprefix(_READY).strip()
        raise SystemExit("the mesh did not start")

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop()

    def _stop(self) -> None:
        self._up.terminate()
        self._up.communicate(timeout=_STOP_S)

    def call(self, *arguments: str) -> None:
        """One command of `meshgate`, whose own process is not recorded."""
        command = [self._meshgate, *arguments]
        subprocess.run(command, cwd=self._tree, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    def idle(self, seconds: float) -> Entered:
        """The functions that the mesh enters in this time without a call."""
        self.take()
        time.sleep(seconds)
        return self.take()

    def take(self) -> Entered:
        """The functions of the checkout that any process but `meshgate up` entered since this was last asked."""
        return {entered for path in self._sockets.iterdir() for entered in self._of(path)}

    def _of(self, path: Path) -> Entered:
        try:
            answer = json.loads(_asked(path))
        except ConnectionError:  # of a process that has ended
            return set()
        if "up" in answer["process"]:
            return set()
        places = ((Path(file), name) for file, name in answer["entered"])
        return {(str(file.relative_to(self._tree)), name) for file, name in places if self._is_ours(file)}

    def _is_ours(self, file: Path) -> bool:
        inside = file.is_relative_to(self._tree) and not file.is_relative_to(self._tree / ".venv")
        return inside and _GENERATED not in file.stem and not file.is_relative_to(_RECORDER)


def _asked(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(str(path))
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)
