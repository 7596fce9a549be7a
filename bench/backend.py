"""`python -m bench.backend`: three services that answer at once, so that what stands before them is what is measured.

Replies are serialised once, at start: what is left is gRPC's own work.
"""

from __future__ import annotations

import meshgate.rpc.tls13  # noqa: F401 - before grpc

# isort: split
import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop

from meshgate.rpc import metadata, server, tls
from meshgate.services import SERVICES
from meshgate.v1 import embedding_pb2, generation_pb2, models_pb2

CHUNKS: Final = 200
"""Messages of a stream."""
_INPUT_TOKENS: Final = 8
_CAPABILITIES: Final = (models_pb2.CAPABILITY_GENERATE, models_pb2.CAPABILITY_EMBED, models_pb2.CAPABILITY_CLASSIFY)


def _vector() -> bytes:
    vector = embedding_pb2.FloatVector(values=[0.05] * 384)
    embedding = embedding_pb2.Embedding(floats=vector, tokens=_INPUT_TOKENS)
    return embedding_pb2.EmbedResponse(embeddings=[embedding], model="instant").SerializeToString()


def _chunk() -> bytes:
    delta = generation_pb2.CandidateDelta(text=" word", token_ids=[1234])
    return generation_pb2.GenerateStreamResponse(deltas=[delta]).SerializeToString()


def _models() -> bytes:
    model = models_pb2.Model(
        name="instant",
        capabilities=_CAPABILITIES,
        default=True,
        max_input_tokens=2048,
        max_output_tokens=CHUNKS,
        max_batch=64,
        max_candidates=1,
    )
    return models_pb2.ListModelsResponse(models=[model]).SerializeToString()


def _unary(reply: bytes) -> Any:
    async def answer(_: bytes, context: Any) -> bytes:
        metadata.report_usage(context, _INPUT_TOKENS)
        return reply

    return grpc.unary_unary_rpc_method_handler(answer)


def _stream(chunk: bytes) -> Any:
    async def answer(_: bytes, context: Any) -> AsyncIterator[bytes]:
        for _index in range(CHUNKS):
            yield chunk
        metadata.report_usage(context, _INPUT_TOKENS, CHUNKS)

    return grpc.unary_stream_rpc_method_handler(answer)


class Instant:
    """The application."""

    name = "instant"

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def start(self) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, made: grpc.aio.Server) -> Sequence[str]:
        answers = {
            "EmbeddingService": {"Embed": _unary(_vector())},
            "GenerationService": {"GenerateStream": _stream(_chunk())},
            "ModelService": {"ListModels": _unary(_models())},
        }
        registering: Any = made  # the stubs lack it
        for name, methods in answers.items():
            registering.add_registered_method_handlers(f"meshgate.v1.{name}", methods)
        return [service.full_name for service in SERVICES.values()]

    async def stop(self, grace: float) -> None:
        return None


async def main() -> int:
    """Serves until the stop signal."""
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
