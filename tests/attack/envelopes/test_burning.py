"""Nobody uses up what another sealed: request ids are in the clear, and whoever reads one could be first with it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.sealing.replay_cache import RedisReplayCache
from meshgate import errors
from meshgate.rpc import status
from meshgate.sealing import codec
from meshgate.v1 import generation_pb2, sealed_pb2, sealed_pb2_grpc
from tests.support.fixtures.scripted_service import ScriptedApplication
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh
from tests.support.network.valkey import Valkey

GENERATE = "/meshgate.v1.GenerationService/Generate"
ALICE = ("acme", "alice")
OTHERS = [("acme", "mallory"), ("evil", "alice"), ("evil", "mallory")]
Who = tuple[str, str]


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with meshes.mesh(tmp_path, {"generation": ScriptedApplication()}) as made:
        yield made


async def key(mesh: Mesh, recipient: int) -> codec.PublicKey:
    async with mesh.channel() as opened:
        stub: Any = sealed_pb2_grpc.KeyServiceStub(opened)
        listed = await stub.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=mesh.auth())
    found = next(each for each in listed.keys if each.recipient == recipient and each.suite == codec.X25519)
    return codec.PublicKey(found.suite, found.public_key)


async def envelope(
    mesh: Mesh, recipient: Any, who: Who = ALICE, request_id: bytes | None = None
) -> sealed_pb2.Envelope:
    """A call that `who` sealed, with a request id of its own or one that it read elsewhere."""
    public = await key(mesh, recipient)
    message = generation_pb2.GenerateRequest(prompt="a").SerializeToString()
    settings = {"method": GENERATE, "tenant": who[0], "subject": who[1], "token_cap": 100, "recipient": recipient}
    with pytest.MonkeyPatch.context() as patched:
        if request_id:
            original = secrets.token_bytes
            patched.setattr(secrets, "token_bytes", lambda size: request_id if size == 16 else original(size))
        made, _ = codec.seal_request(public, message, now_ms=time.time_ns() // 1_000_000, **settings)
    return made


async def sent(mesh: Mesh, sealed: sealed_pb2.Envelope, who: Who = ALICE) -> str:
    """The reason of the error; empty where it was answered."""
    token = mesh.token(tenant=who[0], subject=who[1])
    async with mesh.channel() as opened:
        stub: Any = sealed_pb2_grpc.SealedServiceStub(opened)
        try:
            await stub.Call(sealed_pb2.CallRequest(envelope=sealed), metadata=mesh.auth(token))
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error).reason
    return ""


RECIPIENTS = pytest.mark.parametrize(
    "recipient",
    [sealed_pb2.SEALING_RECIPIENT_GATEWAY, sealed_pb2.SEALING_RECIPIENT_SERVICE],
    ids=["gateway", "service"],
)


@RECIPIENTS
@pytest.mark.parametrize("other", OTHERS, ids="/".join)
async def test_another_cannot_use_it_up(mesh: Mesh, recipient: Any, other: Who) -> None:
    """Neither with the envelope itself nor with its request id in one of their own, before it and after."""
    hers = await envelope(mesh, recipient)
    header = sealed_pb2.EnvelopeHeader.FromString(hers.header)
    copied = await envelope(mesh, recipient, other, header.request_id)
    assert await sent(mesh, hers, other) == "SEAL_INVALID"
    assert await sent(mesh, copied, other) == ""
    assert await sent(mesh, hers) == ""
    assert await sent(mesh, hers) == "SEAL_REPLAYED"
    assert await sent(mesh, copied, other) == "SEAL_REPLAYED"
    assert await sent(mesh, hers, other) == "SEAL_INVALID"


@RECIPIENTS
async def test_another_cannot_be_faster_either(mesh: Mesh, recipient: Any) -> None:
    hers = await envelope(mesh, recipient)
    header = sealed_pb2.EnvelopeHeader.FromString(hers.header)
    theirs = [(await envelope(mesh, recipient, who, header.request_id), who) for who in OTHERS]
    calls = [*((each, who) for each, who in theirs), (hers, ALICE), *((hers, who) for who in OTHERS), (hers, ALICE)]
    reasons = await asyncio.gather(*(sent(mesh, each, who) for each, who in calls))
    own = [reasons[3], reasons[7]]
    assert sorted(own) == ["", "SEAL_REPLAYED"]
    assert reasons[:3] == [""] * 3
    assert reasons[4:7] == ["SEAL_INVALID"] * 3


@RECIPIENTS
async def test_the_same_request_id_in_another_envelope_is_another(mesh: Mesh, recipient: Any) -> None:
    first = await envelope(mesh, recipient)
    header = sealed_pb2.EnvelopeHeader.FromString(first.header)
    second = await envelope(mesh, recipient, ALICE, header.request_id)
    assert [await sent(mesh, each) for each in (first, second, first, second)] == [
        *["", ""],
        *["SEAL_REPLAYED"] * 2,
    ]


@RECIPIENTS
async def test_what_does_not_open_uses_nothing_up(mesh: Mesh, recipient: Any) -> None:
    """The header of an envelope with another body: whoever has it lacks the caller's token, or is the caller."""
    hers = await envelope(mesh, recipient)
    broken = sealed_pb2.Envelope(header=hers.header, ciphertext=bytes(len(hers.ciphertext)))
    for who in (*OTHERS, ALICE):
        assert await sent(mesh, broken, who) in {"SEAL_INVALID", "SEAL_REPLAYED"}
    assert await sent(mesh, hers) == ""


def test_whoever_and_whatever_it_is_makes_it_another() -> None:
    made = sealed_pb2.Envelope(header=b"header", ciphertext=bytes(32) + b"body")
    different = {
        codec.used_by(made, "a", "b"),
        codec.used_by(made, "ab", ""),
        codec.used_by(made, "", "ab"),
        codec.used_by(made, "b", "a"),
        codec.used_by(sealed_pb2.Envelope(header=b"headeR", ciphertext=made.ciphertext), "a", "b"),
        codec.used_by(sealed_pb2.Envelope(header=made.header, ciphertext=b"\x01" + bytes(31)), "a", "b"),
        codec.used_by(sealed_pb2.Envelope(header=b"", ciphertext=b""), "a", "b"),
    }
    assert len(different) == 7


async def test_all_workers_together_tell_callers_apart_and_forget_what_they_could_not_ask(tmp_path: Path) -> None:
    store = Valkey(tmp_path)
    store.start()
    try:
        async with store.client() as client:
            one, other = (RedisReplayCache(client, "mesh", 120_000, 100, timeout=2) for _ in range(2))
            made = sealed_pb2.Envelope(header=b"header", ciphertext=bytes(40))
            hers, theirs = codec.used_by(made, *ALICE), codec.used_by(made, *OTHERS[0])
            await one.admit(theirs, 0)
            await other.admit(hers, 0)
            for replays in (one, other):
                for used in (hers, theirs):
                    with pytest.raises(errors.InvalidArgument):
                        await replays.admit(used, 0)
            later = codec.used_by(sealed_pb2.Envelope(header=b"later"), *ALICE)
            store.stop()
            with pytest.raises(errors.Unavailable):
                await one.admit(later, 0)
            store.start()
            await one.admit(later, 0)
    finally:
        store.stop()
