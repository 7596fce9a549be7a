"""What a sealed channel sends and believes, without a network: which methods, whose envelope, which replies."""

from __future__ import annotations

from typing import Any

import pytest

from meshgate import errors
from meshgate.client import seal
from meshgate.client.token import Token
from meshgate.sealing import codec
from meshgate.v1 import embedding_pb2, generation_pb2, sealed_pb2
from meshgate.v1.sealed_pb2 import EnvelopeHeader

KEY = codec.RecipientKey.generate(codec.X25519)
ALICE = Token("t", "acme", "alice", None, None)
GENERATE = seal.method(
    "/meshgate.v1.GenerationService/Generate",
    generation_pb2.GenerateRequest.SerializeToString,
    generation_pb2.GenerateResponse.FromString,
)
EMBED_STREAM = seal.method(
    "/meshgate.v1.EmbeddingService/EmbedStream",
    embedding_pb2.EmbedStreamRequest.SerializeToString,
    embedding_pb2.EmbedStreamResponse.FromString,
)
REPLY = generation_pb2.GenerateResponse(model="m")


def exchange(method: seal.Method = GENERATE, token: Token = ALICE) -> seal.Exchange:
    return seal.Exchange(method, KEY.public, token)


def opened(envelope: sealed_pb2.Envelope) -> codec.Opened:
    return codec.open_envelope(
        {KEY.public.key_id: KEY}.get,
        envelope,
        tenant="acme",
        subject="alice",
        now_ms=seal.now_ms(),
        window_ms=60_000,
    )


@pytest.mark.parametrize(
    ("method", "sealed"),
    [
        ("/meshgate.v1.GenerationService/Generate", True),
        ("/meshgate.v1.EmbeddingService/Embed", True),
        ("/meshgate.v2.Unheard/Of", True),
        ("/grpc.health.v1.HealthX/Check", True),
        ("/meshgate.v1.ModelService/ListModels", False),
        ("/meshgate.v1.KeyService/ListSealingKeys", False),
        ("/meshgate.v1.SealedService/Call", False),
        ("/grpc.health.v1.Health/Check", False),
    ],
)
def test_what_is_not_known_to_be_harmless_is_sealed(method: str, sealed: bool) -> None:
    assert seal.is_sealed(method) is sealed


@pytest.mark.parametrize(
    "request_",
    [
        generation_pb2.GenerateRequest(model="small", prompt="p"),
        generation_pb2.GenerateStreamRequest(request=generation_pb2.GenerateRequest(model="small")),
    ],
)
def test_the_envelope_names_what_the_request_names(request_: Any) -> None:
    method = seal.method("/a/B", type(request_).SerializeToString)
    envelope = exchange(method).seal_unary(request_).envelope
    header = EnvelopeHeader.FromString(envelope.header)
    assert (header.method, header.model, header.tenant, header.subject) == ("/a/B", "small", "acme", "alice")
    assert not header.HasField("token_cap")
    assert type(request_).FromString(opened(envelope).message) == request_


@pytest.mark.parametrize(("tenant", "subject"), [(None, "alice"), ("acme", None), ("", "alice")])
def test_a_token_that_names_nobody_seals_nothing(tenant: str | None, subject: str | None) -> None:
    with pytest.raises(errors.Unauthenticated):
        exchange(token=Token("t", tenant, subject, None, None)).seal_unary(generation_pb2.GenerateRequest())


def test_a_unary_reply_opens() -> None:
    made = exchange()
    session = opened(made.seal_unary(generation_pb2.GenerateRequest()).envelope).session
    segment = session.seal_response(REPLY.SerializeToString(), last=True)
    assert made.open_unary(sealed_pb2.CallResponse(segment=segment)) == REPLY


@pytest.mark.parametrize(("message", "last"), [(b"", False), (None, True)])
def test_a_unary_reply_is_one_message_and_the_last(message: bytes | None, last: bool) -> None:
    made = exchange()
    session = opened(made.seal_unary(generation_pb2.GenerateRequest()).envelope).session
    with pytest.raises(errors.Internal) as caught:
        made.open_unary(sealed_pb2.CallResponse(segment=session.seal_response(message, last=last)))
    assert caught.value.reason == "SEAL_TRUNCATED"


def test_a_reply_that_does_not_open_is_not_the_callers_fault() -> None:
    made = exchange()
    made.seal_unary(generation_pb2.GenerateRequest())
    with pytest.raises(errors.Internal) as caught:
        made.open_unary(sealed_pb2.CallResponse(segment=sealed_pb2.Segment(ciphertext=bytes(40), last=True)))
    assert caught.value.reason == "SEAL_INVALID"


def test_a_stream_of_requests_is_an_envelope_and_segments() -> None:
    made = exchange(EMBED_STREAM)
    sent = [embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=[text])) for text in "abc"]
    first, second, third = (made.seal_next(request) for request in sent)
    end = made.seal_end()
    assert [message.HasField("envelope") for message in (first, second, third)] == [True, False, False]
    recipient = opened(first.envelope)
    assert end is not None
    received = [recipient.message, *(recipient.session.open_request(m.segment) for m in (second, third, end))]
    recipient.session.close()
    assert received == [*(request.SerializeToString() for request in sent), None]


def test_no_requests_have_no_end_to_seal() -> None:
    assert exchange(EMBED_STREAM).seal_end() is None


def test_a_stream_of_replies_has_to_end() -> None:
    made = exchange(EMBED_STREAM)
    session = opened(made.seal_next(embedding_pb2.EmbedStreamRequest()).envelope).session
    assert made.open_next(session.seal_response(b"")) == (embedding_pb2.EmbedStreamResponse(),)
    with pytest.raises(errors.Internal) as caught:
        made.close()
    assert caught.value.reason == "SEAL_TRUNCATED"
    assert made.open_next(session.seal_response(None, last=True)) is None
    made.close()


def test_replies_to_nothing_do_not_open() -> None:
    with pytest.raises(errors.Internal):
        exchange().open_next(sealed_pb2.Segment())
    with pytest.raises(errors.Internal):
        exchange().close()
