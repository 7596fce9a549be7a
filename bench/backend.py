"""`python -m bench.backend`: a service that answers at once, so that what stands before it is what is measured."""

from __future__ import annotations

import meshgate.runtime.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import uvloop

from meshgate.runtime import metadata, server, tls
from meshgate.v1 import embedding_pb2, embedding_pb2_grpc, models_pb2, models_pb2_grpc

_VECTOR = embedding_pb2.FloatVector(values=[0.05] * 384)
_REPLY = embedding_pb2.EmbedResponse(embeddings=[embedding_pb2.Embedding(floats=_VECTOR, tokens=8)], model="instant")


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    """The same vector for everything."""

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Any) -> embedding_pb2.EmbedResponse:
        metadata.report_usage(context, 8)
        return _REPLY

    async def EmbedStream(
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        async for _ in request_iterator:
            yield embedding_pb2.EmbedStreamResponse(response=_REPLY)


class Models(models_pb2_grpc.ModelServiceServicer):
    """One model."""

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        return models_pb2.ListModelsResponse(models=[models_pb2.Model(name="instant", default=True)])


class Instant:
    """The application."""

    name = "instant"

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def start(self) -> None:
        return None

    def register(self, made: grpc.aio.Server) -> Sequence[str]:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(Embedding(), made)
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), made)
        return ("meshgate.v1.EmbeddingService",)

    async def stop(self, grace: float) -> None:
        return None


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--certs", type=Path, required=True)
    flags = parser.parse_args()
    certs: Path = flags.certs
    identity = tls.TlsConfig(certificate=certs / "embedding.pem", key=certs / "embedding-key.pem", ca=certs / "ca.pem")
    peers = {"/*": ["spiffe://meshgate.local/gateway"]}
    config = server.ServerConfig(listen=flags.listen, tls=identity, peers=peers, drain_seconds=0)
    return await server.serve(config, Instant())


if __name__ == "__main__":
    uvloop.install()
    sys.exit(asyncio.run(main()))
