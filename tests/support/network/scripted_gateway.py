"""A gateway for tests of the SDK, over real TLS: it fails as it is told, and tampers with its replies as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import grpc

import certs
from meshgate import errors
from meshgate.client import seal
from meshgate.rpc import status
from meshgate.sealing import codec
from meshgate.v1 import generation_pb2, generation_pb2_grpc, sealed_pb2, sealed_pb2_grpc

Tampering = Literal["", "flipped", "cut", "swapped", "repeated", "more", "unmarked"]
TENANT = "acme"
SUBJECT = "alice"
WORDS = ("a", "b", "c")


class ScriptedGateway:
    """What happens to the calls that come, and what was seen of them."""

    def __init__(self) -> None:
        self.key = codec.RecipientKey.generate(codec.X25519)
        self.failures: list[errors.MeshError] = []
        """What the next calls of a model end with, one each."""
        self.after_first: errors.MeshError | None = None
        """What a stream ends with after its first reply."""
        self.tampering: Tampering = ""
        self.calls = 0
        self.listings = 0
        self.envelopes: list[bytes] = []
        self.port = 0

    def rotate(self) -> None:
        """A new key, and the old one no longer accepted."""
        self.key = codec.RecipientKey.generate(codec.X25519)

    async def admit(self, context: Any) -> None:
        """Counts a call and fails it, if that is its fate."""
        self.calls += 1
        if self.failures:
            await self.fail(context, self.failures.pop(0))

    async def fail(self, context: Any, error: errors.MeshError) -> None:
        trailers = status.trailing_metadata(error, "request")
        await context.abort(status.grpc_code(error), error.message, trailing_metadata=trailers)

    async def open(self, envelope: sealed_pb2.Envelope, context: Any) -> codec.Opened:
        """Opens an envelope, once."""
        find = {self.key.public.key_id: self.key}.get
        try:
            if envelope.header in self.envelopes:
                raise errors.InvalidArgument("again", reason="SEAL_REPLAYED")
            self.envelopes.append(envelope.header)
            return codec.open_envelope(
                find, envelope, tenant=TENANT, subject=SUBJECT, now_ms=seal.now_ms(), window_ms=60_000
            )
        except errors.InvalidArgument as error:
            await self.fail(context, error)
            raise AssertionError("aborted") from error


class _Keys(sealed_pb2_grpc.KeyServiceServicer):
    def __init__(self, gateway: ScriptedGateway) -> None:
        self._gateway = gateway

    async def ListSealingKeys(
        self, request: sealed_pb2.ListSealingKeysRequest, context: Any
    ) -> sealed_pb2.ListSealingKeysResponse:
        self._gateway.listings += 1
        public = self._gateway.key.public
        key = sealed_pb2.SealingKey(
            suite=public.suite,
            public_key=public.data,
            not_after_unix_ms=seal.now_ms() + 3_600_000,
            recipient=sealed_pb2.SEALING_RECIPIENT_GATEWAY,
        )
        return sealed_pb2.ListSealingKeysResponse(keys=[key])


class _Sealed(sealed_pb2_grpc.SealedServiceServicer):
    def __init__(self, gateway: ScriptedGateway) -> None:
        self._gateway = gateway

    async def Call(self, request: sealed_pb2.CallRequest, context: Any) -> sealed_pb2.CallResponse:
        opened = await self._gateway.open(request.envelope, context)
        await self._gateway.admit(context)
        prompt = generation_pb2.GenerateRequest.FromString(opened.message).prompt
        reply = generation_pb2.GenerateResponse(candidates=[generation_pb2.Candidate(text=prompt)])
        cut = self._gateway.tampering == "cut"
        segment = opened.session.seal_response(reply.SerializeToString(), last=not cut)
        return sealed_pb2.CallResponse(segment=_tampered([segment], self._gateway.tampering)[0])

    async def CallStream(
        self, request_iterator: AsyncIterator[sealed_pb2.CallStreamRequest], context: Any
    ) -> AsyncIterator[sealed_pb2.CallStreamResponse]:
        first = await anext(request_iterator)
        opened = await self._gateway.open(first.envelope, context)
        await self._gateway.admit(context)
        segments = [opened.session.seal_response(_reply(word)) for word in WORDS]
        segments.append(opened.session.seal_response(None, last=True))
        for segment in _tampered(segments, self._gateway.tampering):
            yield sealed_pb2.CallStreamResponse(segment=segment)
            if self._gateway.after_first is not None:
                await self._gateway.fail(context, self._gateway.after_first)


def _reply(word: str) -> bytes:
    reply = generation_pb2.GenerateStreamResponse(deltas=[generation_pb2.CandidateDelta(text=word)])
    return reply.SerializeToString()


def _tampered(segments: list[sealed_pb2.Segment], how: Tampering) -> list[sealed_pb2.Segment]:
    match how:
        case "flipped":
            bad = bytes([segments[0].ciphertext[0] ^ 1]) + segments[0].ciphertext[1:]
            return [sealed_pb2.Segment(ciphertext=bad, last=segments[0].last), *segments[1:]]
        case "cut":
            return segments[:-1] or segments
        case "swapped":
            return [*segments[1::-1], *segments[2:]]
        case "repeated":
            return [segments[0], *segments]
        case "more":
            return [*segments, segments[-1]]
        case "unmarked":
            return [*segments[:-1], sealed_pb2.Segment(ciphertext=segments[-1].ciphertext, last=False)]
    return segments


class _Generation(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, gateway: ScriptedGateway) -> None:
        self._gateway = gateway

    async def Generate(self, request: generation_pb2.GenerateRequest, context: Any) -> generation_pb2.GenerateResponse:
        await self._gateway.admit(context)
        return generation_pb2.GenerateResponse(candidates=[generation_pb2.Candidate(text=request.prompt)])

    async def GenerateStream(
        self, request: generation_pb2.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[generation_pb2.GenerateStreamResponse]:
        await self._gateway.admit(context)
        for word in WORDS:
            yield generation_pb2.GenerateStreamResponse.FromString(_reply(word))
            if self._gateway.after_first is not None:
                await self._gateway.fail(context, self._gateway.after_first)

    async def CountTokens(
        self, request: generation_pb2.CountTokensRequest, context: Any
    ) -> generation_pb2.CountTokensResponse:
        return generation_pb2.CountTokensResponse()


@asynccontextmanager
async def scripted_gateway(home: Path) -> AsyncIterator[ScriptedGateway]:
    """One that serves on a port of its own with the development certificate of the gateway."""
    certs.ensure(home, certs.NAMES)
    folder = home / "certs"
    pair = ((folder / "gateway-key.pem").read_bytes(), (folder / "gateway.pem").read_bytes())
    gateway = ScriptedGateway()
    server = grpc.aio.server()
    sealed_pb2_grpc.add_KeyServiceServicer_to_server(_Keys(gateway), server)
    sealed_pb2_grpc.add_SealedServiceServicer_to_server(_Sealed(gateway), server)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(_Generation(gateway), server)
    gateway.port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    try:
        yield gateway
    finally:
        await server.stop(None)
