"""`meshgate embed --out` and the bulk example through a real gateway: whole, interrupted, resumed, in little memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from meshgate import errors
from meshgate.cli.files.progress import side_file
from meshgate.rpc import metadata, tls
from meshgate.rpc.server import ServerConfig
from meshgate.v1 import embedding_pb2 as pb
from meshgate.v1 import embedding_pb2_grpc, models_pb2_grpc
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, ModelConfig
from tests.support.fixtures.scripted_service import Embedding, Models, ScriptedApplication
from tests.support.network.mesh import Mesh, mesh
from tests.tinymodels.bert import build_tiny_bert

COMMAND = "from meshgate.cli.main import main; main()"
IMPATIENT = f"from meshgate.cli.commands import embed_file; embed_file._PAUSE_LEAST = 0.001; {COMMAND}"
EAGER = f"from meshgate.cli.commands import embed_file; embed_file._SAVE_SECONDS = 0; {COMMAND}"
MEASURED = """
from meshgate.cli.main import main
try:
    main()
finally:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""And says the most memory it had, in KiB: not by getrusage, in which that of the parent lives on."""
COLUMNS = 16
EXAMPLE = Path(__file__).parents[3] / "examples" / "bulk_embed.py"


def vector(text: str) -> bytes:
    """What a text becomes: always the same, and never another's."""
    digest = hashlib.shake_256(text.encode()).digest(COLUMNS)
    return np.frombuffer(digest, np.uint8).astype("<f4").tobytes()


class Hashed(Embedding):
    """An embedding service without a model, whose streams fail or wait where a test says."""

    name = "embedding"

    def __init__(self) -> None:
        super().__init__(ScriptedApplication())
        self.failed = asyncio.Event()
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.halt_at: int | None = None
        """After so many messages of a stream `reached` is set, and `go_on` waited for."""
        self.fail_after: int | None = None
        self.streams = 0

    async def start(self) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(self, server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        return ("meshgate.v1.EmbeddingService", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        self.go_on.set()

    async def EmbedStream(
        self, request_iterator: AsyncIterator[pb.EmbedStreamRequest], context: Any
    ) -> AsyncIterator[pb.EmbedStreamResponse]:
        self.streams += 1
        count = 0
        async for message in request_iterator:
            if count == self.halt_at:
                self.reached.set()
                await self.go_on.wait()
            if count == self.fail_after:
                raise errors.Unavailable("the queue is full", reason="OVERLOADED", retry_after=0.01)
            count += 1
            made = [pb.Embedding(packed=vector(text)) for text in message.request.inputs]
            yield pb.EmbedStreamResponse(response=pb.EmbedResponse(embeddings=made, model="hash", dimensions=COLUMNS))
        metadata.report_usage(context, count)


def texts(path: Path, count: int) -> Path:
    path.write_text("".join(f"line {number} says something\n" for number in range(count)))
    return path


def expected(path: Path) -> np.ndarray[Any, Any]:
    lines = path.read_text().splitlines()
    return np.frombuffer(b"".join(map(vector, lines)), "<f4").reshape(len(lines), COLUMNS)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            pass


async def begin(made: Mesh, *arguments: Any, code: str = COMMAND) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "MESHGATE_HOME": str(made.home),
        "MESHGATE_TARGET": made.target,
        "MESHGATE_TOKEN": made.token(),
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, *map(str, arguments)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(made: Mesh, *arguments: Any, code: str = COMMAND) -> tuple[int | None, str]:
    """The exit status, and what was said."""
    process = await begin(made, *arguments, code=code)
    said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, b"".join(said).decode()


@pytest.mark.parametrize("sealed", [False, True])
async def test_row_n_is_the_vector_of_line_n(tmp_path: Path, sealed: bool) -> None:
    source, out = texts(tmp_path / "texts", 1000), tmp_path / "vectors.npy"
    async with mesh(tmp_path / "home", {"embedding": Hashed()}) as made:
        flags = ("--sealed",) if sealed else ()
        assert await run(made, "embed", "--file", source, "--out", out, *flags) == (0, "")
    assert np.array_equal(np.load(out), expected(source))
    assert np.array_equal(np.load(out, mmap_mode="r"), expected(source))
    assert not side_file(out).exists()


async def test_interrupted_and_resumed_it_is_the_same_file(tmp_path: Path) -> None:
    source, out, side = texts(tmp_path / "texts", 2000), tmp_path / "v.npy", tmp_path / "v.npy.progress"
    whole = tmp_path / "whole.npy"
    service = Hashed()
    async with mesh(tmp_path / "home", {"embedding": service}) as made:
        assert (await run(made, "embed", "--file", source, "--out", whole))[0] == 0
        service.halt_at = 9
        service.go_on.clear()
        process = await begin(made, "embed", "--file", source, "--out", out, code=EAGER)
        await asyncio.wait_for(service.reached.wait(), 30)
        await until(lambda: json.loads(side.read_text())["done"] > 0)
        process.send_signal(signal.SIGINT)
        _, said = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, b"the same command goes on" in said) == (130, True), said
        done = json.loads(side.read_text())["done"]
        assert 0 < done <= 9 * 64
        service.halt_at = None
        service.go_on.set()

        source.write_text(source.read_text().replace("line 1999", "line 2000"))
        assert "has changed since" in (await run(made, "embed", "--file", source, "--out", out))[1]
        source.write_text(source.read_text().replace("line 2000", "line 1999"))
        status, said_ = await run(made, "embed", "--file", source, "--out", out, "--dtype", "float16")
        assert (status, "other options" in said_) == (2, True)
        assert await run(made, "embed", "--file", source, "--out", out) == (0, "")
    assert out.read_bytes() == whole.read_bytes()
    assert not side.exists()


async def test_killed_it_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    """SIGKILL, and a tail that was written and not counted: nothing of it stays."""
    source, out, side = texts(tmp_path / "texts", 2000), tmp_path / "v.npy", tmp_path / "v.npy.progress"
    service = Hashed()
    service.halt_at = 20
    async with mesh(tmp_path / "home", {"embedding": service}) as made:
        service.go_on.clear()
        process = await begin(made, "embed", "--file", source, "--out", out, code=EAGER)
        await asyncio.wait_for(service.reached.wait(), 30)
        await until(lambda: json.loads(side.read_text())["done"] > 0)
        process.kill()
        await process.wait()
        service.halt_at = None
        service.go_on.set()
        kept = json.loads(side.read_text())
        with out.open("r+b") as file:
            file.seek(128 + kept["done"] * COLUMNS * 4)
            file.write(b"\xff" * 1000)
        assert await run(made, "embed", "--file", source, "--out", out) == (0, "")
    assert np.array_equal(np.load(out), expected(source))


async def test_a_service_that_is_busy_is_asked_again_from_where_it_stopped(tmp_path: Path) -> None:
    source, out = texts(tmp_path / "texts", 1000), tmp_path / "v.npy"
    service = Hashed()
    service.fail_after = 4
    async with mesh(tmp_path / "home", {"embedding": service}) as made:
        assert await run(made, "embed", "--file", source, "--out", out) == (0, "")
    assert service.streams >= 4
    assert np.array_equal(np.load(out), expected(source))


async def test_a_service_that_stays_busy_is_given_up_and_the_job_is_kept(tmp_path: Path) -> None:
    source, out = texts(tmp_path / "texts", 10), tmp_path / "v.npy"
    service = Hashed()
    service.fail_after = 0
    async with mesh(tmp_path / "home", {"embedding": service}) as made:
        status, said = await run(made, "embed", "--file", source, "--out", out, code=IMPATIENT)
        assert (status, "OVERLOADED" in said) == (69, True)
        service.fail_after = None
        assert await run(made, "embed", "--file", source, "--out", out) == (0, "")
    assert np.array_equal(np.load(out), expected(source))


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    async with mesh(tmp_path / "home", {"embedding": Hashed()}) as made:
        for count in (3_000, 60_000):
            source, out = tmp_path / f"{count}.txt", tmp_path / f"{count}.npy"
            source.write_text("".join(f"{number} {'x' * 250}\n" for number in range(count)))
            status, said = await run(made, "embed", "--file", source, "--out", out, code=MEASURED)
            assert status == 0, said
            peaks.append(int(said.split()[-1]))  # KiB
    assert (tmp_path / "60000.txt").stat().st_size > 15_000_000
    assert peaks[1] - peaks[0] < 6 * 1024, peaks


async def test_the_example_finds_what_is_alike(tmp_path: Path) -> None:
    """With a real model, random as its weights are."""
    source = tmp_path / "texts"
    source.write_text("the same words\n\nsomething else altogether\nthe same words\n")
    nowhere = tls.TlsConfig(certificate=tmp_path, key=tmp_path, ca=tmp_path)
    model = ModelConfig(source=str(build_tiny_bert(tmp_path / "bert")), dtype="float32", device="cpu")
    app = App(EmbeddingConfig(server=ServerConfig(tls=nowhere), model=model))
    async with mesh(tmp_path / "home", {"embedding": app}) as made:
        token = tmp_path / "token"
        token.write_text(made.token())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(EXAMPLE), str(source)),
            env={
                **os.environ,
                "MESHGATE_TARGET": made.target,
                "MESHGATE_CA": str(made.home / "certs" / "ca.pem"),
                "MESHGATE_TOKEN_FILE": str(token),
            },
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    lines = said.decode().splitlines()
    assert len(lines) == 3
    assert lines[0] == "1.000  the same words  ~  the same words"
    assert len(EXAMPLE.read_text().splitlines()) < 80
