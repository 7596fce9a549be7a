"""`meshgate chat` on a real terminal: what is pasted is one question, and there is a sign of life while one waits."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc, models_pb2_grpc
from tests.support.fixtures.scripted_service import Generation, Models, ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a pseudo-terminal of Linux")

_SECONDS = 60.0


class Talker(ScriptedApplication):
    """Answers each request with one word, once it may, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[pb.GenerateRequest] = []

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(Talk(self), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        return ("meshgate.v1.GenerationService", "meshgate.v1.ModelService")


class Talk(Generation):
    """The servicer of a Talker."""

    def __init__(self, talker: Talker) -> None:
        super().__init__(talker)
        self._talker = talker

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        self._talker.requests.append(request.request)
        await self._talker.go_on.wait()
        finish = pb.Finish(reason=pb.FINISH_REASON_STOP)
        yield pb.GenerateStreamResponse(deltas=[pb.CandidateDelta(text="answer", finish=finish)])


class Terminal:
    """A program on a pseudo-terminal of 80 columns."""

    def __init__(self, mesh: Mesh, *arguments: str) -> None:
        self.shown = ""
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._said = asyncio.Event()
        command = [str(Path(sys.executable).parent / "meshgate"), *arguments]
        environment = {
            **os.environ,
            "MESHGATE_HOME": str(mesh.home),
            "MESHGATE_TARGET": mesh.target,
            "TERM": "xterm",
            "COLUMNS": "80",
            "MESHGATE_TOKEN": mesh.token(),
        }
        self._starting = asyncio.create_subprocess_exec(
            *command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        self._slave = slave
        asyncio.get_running_loop().add_reader(self._master, self._read)

    async def start(self) -> None:
        self.process = await self._starting
        os.close(self._slave)

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, text: str) -> None:
        """Returns once `text` was shown since the last call."""
        async with asyncio.timeout(_SECONDS):
            while text not in self.shown:
                self._said.clear()
                await self._said.wait()
        self.shown = self.shown.partition(text)[2]

    async def end(self) -> None:
        async with asyncio.timeout(_SECONDS):
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._master, 65_536).decode(errors="replace")
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self._master)
        self._said.set()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Mesh, Talker]]:
    application = Talker()
    async with meshes.mesh(tmp_path, {"generation": application}) as mesh:
        yield mesh, application


PASTES = {
    "bracketed": "\x1b[200~first line\nsecond line\nthird line\x1b[201~\r",
    "as it comes": "first line\nsecond line\nthird line\n",
    "one": "first line\r",
}


@pytest.mark.parametrize("way", PASTES)
async def test_lines_pasted_together_are_one_question(running: tuple[Mesh, Talker], way: str) -> None:
    mesh, application = running
    application.go_on.set()
    terminal = Terminal(mesh, "chat")
    await terminal.start()
    await terminal.until("> ")
    terminal.write(PASTES[way])
    await terminal.until("answer")
    await terminal.until("> ")
    terminal.write("/exit\r")
    await terminal.end()
    expected = "first line" if way == "one" else "first line\nsecond line\nthird line"
    assert [request.conversation.messages[-1].content for request in application.requests] == [expected]


async def test_an_answer_is_streamed_and_waited_for_with_a_sign_of_life(
    running: tuple[Mesh, Talker],
) -> None:
    mesh, application = running
    terminal = Terminal(mesh, "generate", "Gravity is")
    await terminal.start()
    await terminal.until("waiting for the model")
    application.go_on.set()
    await terminal.until("Gravity isanswer")
    await terminal.end()
    assert terminal.process.returncode == 0
