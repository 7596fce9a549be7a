"""As much of the Hugging Face hub as a snapshot needs: one repository's commit, its list of files, and the files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "1234567890abcdef1234567890abcdef12345678"
REPOSITORY = "someone/some-model"


class Hub(ThreadingHTTPServer):
    """Serves the files of a folder, and keeps the paths it was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        prefix = f"GET /{REPOSITORY}/resolve/{COMMIT}/"
        return {each.removeprefix(prefix) for each in self.asked if each.startswith(prefix)}


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test asks for `asked`."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if path.startswith(f"/api/models/{REPOSITORY}/revision/"):
            self._send(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode(), body=body)
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            self._send(json.dumps(self._tree()).encode(), body=body)
        elif (file := self.server.folder / path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")).is_file():
            self._send(file.read_bytes(), body=body)
        else:
            self.send_error(404)

    def _tree(self) -> list[dict[str, Any]]:
        folder = self.server.folder
        return [
            {
                "type": "file",
                "path": str(file.relative_to(folder)),
                "size": file.stat().st_size,
                "oid": hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest(),
            }
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]

    def _send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def hub(folder: Path) -> Iterator[Hub]:
    """A hub whose one repository holds the files of a folder."""
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
