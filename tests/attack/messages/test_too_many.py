"""What a caller sends beyond what the contract has is refused, and not ignored: messages of a call with one, segments
after the last, envelopes after the first; and so is a header that is out of its ranges, with the field named.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.routes import PUBLIC_ROUTES
from meshgate import errors
from meshgate.rpc import status
from meshgate.sealing import codec
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, models_pb2, sealed_pb2, sealed_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh

GATEWAY, SERVICE = sealed_pb2.SEALING_RECIPIENT_GATEWAY, sealed_pb2.SEALING_RECIPIENT_SERVICE
GENERATE = "/meshgate.v1.GenerationService/Generate"
STREAM = "/meshgate.v1.GenerationService/GenerateStream"
BULK = "/meshgate.v1.EmbeddingService/EmbedStream"
QUESTION = generation_pb2.GenerateRequest(prompt="a")
BY_NAME = {"gateway": GATEWAY, "service": SERVICE}


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    application = ScriptedApplication()
    application.go_on.set()
    async with meshes.mesh(tmp_path, {"generation": application, "embedding": application}) as made:
        yield made


async def sent(mesh: Mesh, method: str, messages: Sequence[Any]) -> errors.MeshError | None:
    """Sends all `messages` of a call, whatever its arity, and half-closes. None: it was answered."""
    async with mesh.channel() as opened:
        call = opened.stream_stream(method)(metadata=mesh.auth(), timeout=20)
        try:
            for message in messages:
                await call.write(message.SerializeToString())
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, Exception):
            pass
        try:
            async for _ in call:
                continue
            assert await call.code() == grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error)
    return None


ONES = [path for path, route in PUBLIC_ROUTES.items() if not route.client_streams and "Sealed" not in path]
REQUESTS = {
    "GenerateRequest": QUESTION,
    "GenerateStreamRequest": generation_pb2.GenerateStreamRequest(request=QUESTION),
    "CountTokensRequest": generation_pb2.CountTokensRequest(prompt="a"),
    "EmbedRequest": embedding_pb2.EmbedRequest(inputs=["a"]),
    "ClassifyRequest": classification_pb2.ClassifyRequest(),
    "ListModelsRequest": models_pb2.ListModelsRequest(),
}


@pytest.mark.parametrize("path", ONES)
async def test_a_second_message_of_a_call_with_one(mesh: Mesh, path: str) -> None:
    kind = PUBLIC_ROUTES[path].request_type
    request = REQUESTS.get(kind.DESCRIPTOR.name, kind())
    for messages in ([request, request], [request, request, request]):
        error = await sent(mesh, path, messages)
        assert error is not None
        assert (type(error), error.reason) == (errors.InvalidArgument, "MALFORMED")
        assert "one request message" in error.message
    if not path.endswith(("CountTokens", "/Embed")) and "Classification" not in path:  # what the double answers
        assert await sent(mesh, path, [request]) is None


async def key(mesh: Mesh, recipient: int, service: str) -> codec.PublicKey:
    async with mesh.channel() as opened:
        stub: Any = sealed_pb2_grpc.KeyServiceStub(opened)
        listed = await stub.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=mesh.auth())
    found = next(
        each
        for each in listed.keys
        if each.recipient == recipient and each.suite == codec.X25519 and each.service in ("", service)
    )
    return codec.PublicKey(found.suite, found.public_key)


async def sealed(
    mesh: Mesh, recipient: Any, method: str, message: bytes, **changes: Any
) -> tuple[sealed_pb2.Envelope, codec.SenderSession]:
    service = method.split("/")[1]
    settings = {"tenant": "acme", "subject": "alice", "token_cap": 1000, "recipient": recipient, **changes}
    now = time.time_ns() // 1_000_000
    return codec.seal_request(await key(mesh, recipient, service), message, method=method, now_ms=now, **settings)


RECIPIENTS = pytest.mark.parametrize("recipient", BY_NAME.values(), ids=BY_NAME)


@RECIPIENTS
async def test_a_second_message_of_a_sealed_call_with_one(mesh: Mesh, recipient: Any) -> None:
    streamed = generation_pb2.GenerateStreamRequest(request=QUESTION).SerializeToString()
    for path, outer, method, message in (
        ("Call", sealed_pb2.CallRequest, GENERATE, QUESTION.SerializeToString()),
        ("CallStream", sealed_pb2.CallStreamRequest, STREAM, streamed),
    ):
        envelope, session = await sealed(mesh, recipient, method, message)
        later: list[Any] = [outer(), outer(envelope=envelope)]
        if path == "CallStream":
            later.append(sealed_pb2.CallStreamRequest(segment=session.seal_request(None, last=True)))
        for extra in later:
            envelope, _ = await sealed(mesh, recipient, method, message)
            error = await sent(mesh, f"/meshgate.v1.SealedService/{path}", [outer(envelope=envelope), extra])
            assert error is not None
            assert error.reason == "MALFORMED"
        envelope, _ = await sealed(mesh, recipient, method, message)
        assert await sent(mesh, f"/meshgate.v1.SealedService/{path}", [outer(envelope=envelope)]) is None


@RECIPIENTS
@pytest.mark.parametrize(
    "extra",
    ["nothing", "the last again", "one more", "a message", "an empty segment", "an envelope", "without a last", "both"],
)
@pytest.mark.parametrize("said", ["with a message", "without"])
async def test_segments_of_a_stream(mesh: Mesh, recipient: Any, extra: str, said: str) -> None:
    piece = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["a"])).SerializeToString()
    envelope, session = await sealed(mesh, recipient, BULK, piece)
    outer = sealed_pb2.CallStreamRequest
    middle = session.seal_request(piece)
    last = session.seal_request(piece if said == "with a message" else None, last=True)
    first = outer(envelope=envelope)
    messages = [first, outer(segment=middle), outer(segment=last)]
    match extra:
        case "the last again":
            messages.append(outer(segment=last))
        case "one more":
            messages.append(outer(segment=middle))
        case "a message" | "an empty segment":
            messages.append(
                outer(segment=sealed_pb2.Segment(ciphertext=b"x" * 17)) if extra == "a message" else outer()
            )
        case "an envelope":
            messages.append(outer(envelope=envelope))
        case "without a last":
            messages.pop()
        case "both":
            first.segment.CopyFrom(middle)
    error = await sent(mesh, "/meshgate.v1.SealedService/CallStream", messages)
    if extra == "nothing":
        assert error is None
        return
    assert isinstance(error, errors.InvalidArgument)
    if extra in ("an envelope", "both"):
        assert [each.field for each in error.violations] == ["envelope" if extra == "an envelope" else "segment"]
    else:
        assert error.reason == "SEAL_INVALID"


HEADERS: list[tuple[str, Any, str]] = [
    ("token_cap", 0, "token_cap"),
    ("token_cap", 2**31, "token_cap"),
    ("token_cap", 2**32 - 1, "token_cap"),
    ("token_cap", 1, ""),
    ("token_cap", 2**31 - 1, ""),
    ("model", "x" * 257, "model"),
    ("model", "é" * 129, "model"),
    ("method", "/x/" + "y" * 254, "method"),
    ("key_id", "", "key_id"),
    ("key_id", "x" * 65, "key_id"),
    ("recipient", 0, "recipient"),
    ("recipient", 3, "recipient"),
]


def with_header(envelope: sealed_pb2.Envelope, field: str, value: Any) -> sealed_pb2.Envelope:
    """The same with another header, under which the body opens no more; the ranges are looked at before."""
    header = sealed_pb2.EnvelopeHeader.FromString(envelope.header)
    if value is None:
        header.ClearField(field)  # type: ignore[arg-type] # a name
    else:
        setattr(header, field, value)
    return sealed_pb2.Envelope(header=header.SerializeToString(), ciphertext=envelope.ciphertext)


@RECIPIENTS
@pytest.mark.parametrize(
    ("field", "value", "wrong"), HEADERS, ids=[f"{each[0]}={str(each[1])[:12]}" for each in HEADERS]
)
async def test_a_header_out_of_its_ranges(mesh: Mesh, recipient: Any, field: str, value: Any, wrong: str) -> None:
    envelope, _ = await sealed(mesh, recipient, GENERATE, QUESTION.SerializeToString())
    request = sealed_pb2.CallRequest(envelope=with_header(envelope, field, value))
    error = await sent(mesh, "/meshgate.v1.SealedService/Call", [request])
    assert isinstance(error, errors.InvalidArgument)
    assert [each.field for each in error.violations] == ([f"envelope.header.{wrong}"] if wrong else [])
    if not wrong:
        assert error.reason == "SEAL_INVALID"


@RECIPIENTS
async def test_a_cap_is_for_a_service_to_have_and_for_the_gateway_to_leave_out(mesh: Mesh, recipient: Any) -> None:
    envelope, _ = await sealed(mesh, recipient, GENERATE, QUESTION.SerializeToString(), token_cap=None)
    error = await sent(mesh, "/meshgate.v1.SealedService/Call", [sealed_pb2.CallRequest(envelope=envelope)])
    fields = [each.field for each in error.violations] if isinstance(error, errors.InvalidArgument) else None
    assert fields == (["envelope.header.token_cap"] if recipient == SERVICE else None)


@pytest.mark.parametrize("value", [3, -1, 2**31 - 1])
async def test_a_recipient_that_there_is_not(mesh: Mesh, value: int) -> None:
    request = sealed_pb2.ListSealingKeysRequest()
    request.recipient = value  # type: ignore[assignment] # no value of the contract
    error = await sent(mesh, "/meshgate.v1.KeyService/ListSealingKeys", [request])
    assert isinstance(error, errors.InvalidArgument)
    assert [each.field for each in error.violations] == ["recipient"]
