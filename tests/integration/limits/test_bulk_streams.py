"""A bulk stream is charged message by message: a million lines do not run free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.rpc import status
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes


async def test_a_bulk_stream_ends_where_its_tokens_do(tmp_path: Path) -> None:
    limits = {"principal": {"tokens_per_minute": 1, "token_burst": 1000}, "stream_wait_seconds": 0}
    application = ScriptedApplication()
    async with meshes.mesh(tmp_path, {"embedding": application}, limits=limits) as mesh, mesh.channel() as channel:
        stub: Any = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        stream = stub.EmbedStream(metadata=mesh.auth(), timeout=20)
        request = embedding_pb2.EmbedRequest(inputs=["x" * 90])
        answered = 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while answered < 50:
                await stream.write(embedding_pb2.EmbedStreamRequest(request=request))
                if await stream.read() is grpc.aio.EOF:
                    break
                answered += 1
            await stream.done_writing()
            await stream.read()
        error = status.from_rpc_error(caught.value)
        assert isinstance(error, errors.LimitExceeded)
        assert error.reason == "TOKENS_EXHAUSTED"
        assert 5 <= answered <= 1000 // 90
        assert mesh.record_of(error)["tokens_reserved"] <= 1000
