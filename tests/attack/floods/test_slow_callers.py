"""Callers who don't read, and callers who don't write: each holds little, and not for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from meshgate import errors
from meshgate.rpc import status
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, generation_pb2, generation_pb2_grpc
from tests.support.fixtures.scripted_service import Generation, ScriptedApplication
from tests.support.network.bystander import SECONDS, attacked, metric, served, until
from tests.support.network.mesh import Mesh, refused

SHORT = 1.0


class Torrent(ScriptedApplication):
    """Streams without end, and knows how much of it was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def register(self, server: grpc.aio.Server) -> Any:
        names = super().register(server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(_Torrent(self), server)
        return names


class _Torrent(Generation):
    def __init__(self, application: Torrent) -> None:
        super().__init__(application)
        self._torrent = application

    async def GenerateStream(
        self, request: generation_pb2.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[generation_pb2.GenerateStreamResponse]:
        try:
            while True:
                delta = generation_pb2.CandidateDelta(text="x" * 10_000)
                yield generation_pb2.GenerateStreamResponse(deltas=[delta])
                self._torrent.sent += 1
        except (asyncio.CancelledError, GeneratorExit):
            self._torrent.abandoned.set()
            raise


def wanted() -> generation_pb2.GenerateStreamRequest:
    return generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(prompt="go"))


def ends(mesh: Mesh, reason: str) -> list[dict[str, Any]]:
    return [record for record in mesh.records() if record.get("reason") == reason]


async def test_a_reader_who_stops_reading(tmp_path: Path) -> None:
    torrent = Torrent()
    async with attacked(tmp_path, torrent, slow_reader_seconds=SHORT) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        stream = stub.GenerateStream(wanted(), metadata=mesh.auth())
        await stream.read()
        await asyncio.wait_for(torrent.abandoned.wait(), SECONDS)  # the work is given up
        taken = torrent.sent
        assert taken < 2000  # 20 MB: windows of two connections and no more
        await served(mesh)
        await until(lambda: len(ends(mesh, "SLOW_READER")) == 1)
        [record] = ends(mesh, "SLOW_READER")
        assert (record["status"], record["event"]) == ("DEADLINE_EXCEEDED", "ended")
        error = await drained(stream)  # and who reads on is told why
        assert (type(error), error.reason) == (errors.DeadlineExceeded, "SLOW_READER")
        assert error.request_id == record["request_id"]


async def drained(stream: Any) -> errors.MeshError:
    try:
        async with asyncio.timeout(SECONDS):
            while await stream.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        return status.from_rpc_error(error)
    raise AssertionError("the stream ended well")


async def test_readers_who_stop_hold_no_place(tmp_path: Path) -> None:
    bounds = {"slow_reader_seconds": SHORT, "max_calls": 5}
    async with attacked(tmp_path, Torrent(), **bounds) as mesh, mesh.channel() as channel:
        stub: Any = generation_pb2_grpc.GenerationServiceStub(channel)
        streams = [stub.GenerateStream(wanted(), metadata=mesh.auth()) for _ in range(4)]
        await asyncio.gather(*(stream.read() for stream in streams))
        await until(lambda: len(ends(mesh, "SLOW_READER")) == 4)
        await until(lambda: metric(mesh, "meshgate_gateway_inside_calls")["calls",] == 0)
        assert metric(mesh, "meshgate_gateway_slow_callers_total")["reading",] == 4


async def test_a_stream_that_never_begins(tmp_path: Path) -> None:
    async with attacked(tmp_path, first_message_seconds=SHORT) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stream = stub.EmbedStream(metadata=mesh.auth())
        error = await refused(asyncio.wait_for(stream.read(), SECONDS))
        assert (type(error), error.reason) == (errors.DeadlineExceeded, "SILENT_WRITER")
        assert mesh.record_of(error)["event"] == "refused"
        assert metric(mesh, "meshgate_gateway_slow_callers_total")["first_message",] == 1


async def test_a_writer_who_falls_silent(tmp_path: Path) -> None:
    async with attacked(tmp_path, silent_writer_seconds=SHORT) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stream = stub.EmbedStream(metadata=mesh.auth())
        await stream.write(embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["four"])))
        assert (await stream.read()).response.embeddings[0].tokens == 4
        error = await drained(stream)
        assert (type(error), error.reason) == (errors.DeadlineExceeded, "SILENT_WRITER")
        assert mesh.record_of(error)["event"] == "ended"
