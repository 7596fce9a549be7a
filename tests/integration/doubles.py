"""A generation service without a model, for tests of what stands around one. It serves over real mutual TLS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from meshgate import errors
from meshgate.rpc import metadata
from meshgate.v1 import (
    embedding_pb2,
    embedding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)


class ScriptedApplication:
    """Answers with what it was asked, and remembers what it saw."""

    def __init__(self, name: str = "scripted") -> None:
        self.name = name
        self.failed = asyncio.Event()
        self.metadata: dict[str, str | bytes] = {}
        self.time_remaining: float | None = None
        self.streaming = asyncio.Event()
        """Set when a stream has begun."""
        self.abandoned = asyncio.Event()
        """Set when a stream was cancelled."""
        self.go_on = asyncio.Event()
        """A stream waits for it after its first message."""

    async def start(self) -> None:
        return None

    def cpu_seconds(self) -> float:
        return time.process_time()

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(Generation(self), server)
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(Embedding(self), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        return ("meshgate.v1.GenerationService", "meshgate.v1.EmbeddingService", "meshgate.v1.ModelService")

    async def stop(self, grace: float) -> None:
        self.go_on.set()

    def note(self, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata() or ())
        self.time_remaining = context.time_remaining()


class Generation(generation_pb2_grpc.GenerationServiceServicer):
    """Says the prompt again."""

    def __init__(self, application: ScriptedApplication) -> None:
        self._application = application

    async def Generate(self, request: generation_pb2.GenerateRequest, context: Any) -> generation_pb2.GenerateResponse:
        self._application.note(context)
        metadata.report_usage(context, 3, 5)
        candidate = generation_pb2.Candidate(text=request.prompt)
        return generation_pb2.GenerateResponse(candidates=[candidate], model="alpha")

    async def CountTokens(
        self, request: generation_pb2.CountTokensRequest, context: Any
    ) -> generation_pb2.CountTokensResponse:
        raise RuntimeError("a defect, with a secret in its text")

    async def GenerateStream(
        self, request: generation_pb2.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[generation_pb2.GenerateStreamResponse]:
        application = self._application
        application.note(context)
        metadata.report_usage(context, 3, 5)
        try:
            for number, word in enumerate(request.request.prompt.split()):
                delta = generation_pb2.CandidateDelta(text=word)
                yield generation_pb2.GenerateStreamResponse(deltas=[delta])
                application.streaming.set()
                if number == 0:
                    await application.go_on.wait()
        except (asyncio.CancelledError, GeneratorExit):
            application.abandoned.set()
            raise


class Embedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Counts letters, one response a request."""

    def __init__(self, application: ScriptedApplication) -> None:
        self._application = application

    async def Embed(self, request: embedding_pb2.EmbedRequest, context: Any) -> embedding_pb2.EmbedResponse:
        raise errors.Unavailable("the queue is full", reason="OVERLOADED", retry_after=0.5)

    async def EmbedStream(
        self, request_iterator: AsyncIterator[embedding_pb2.EmbedStreamRequest], context: Any
    ) -> AsyncIterator[embedding_pb2.EmbedStreamResponse]:
        self._application.note(context)
        async for message in request_iterator:
            vectors = [embedding_pb2.Embedding(tokens=len(text)) for text in message.request.inputs]
            yield embedding_pb2.EmbedStreamResponse(response=embedding_pb2.EmbedResponse(embeddings=vectors))
        metadata.report_usage(context, 7)


class Models(models_pb2_grpc.ModelServiceServicer):
    """Two models: alpha, the default, and beta."""

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        alpha = models_pb2.Model(name="alpha", default=True, aliases=["first"])
        return models_pb2.ListModelsResponse(models=[alpha, models_pb2.Model(name="beta")])
