"""A service is called by whom its list names, and by nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.rpc import orca
from meshgate.rpc.guard import Guard, PeerPolicy
from meshgate.rpc.tls import spiffe_ids

GATEWAY = "spiffe://meshgate.local/gateway"
EMBED = "/meshgate.v1.EmbeddingService/Embed"


def test_a_named_peer_may_call() -> None:
    PeerPolicy({"/meshgate.v1.EmbeddingService/*": [GATEWAY]}).check(EMBED, [GATEWAY])


@pytest.mark.parametrize(
    ("method", "peers"),
    [
        (EMBED, []),
        (EMBED, ["spiffe://meshgate.local/generation"]),
        (EMBED, ["spiffe://meshgate.local/gateway/x"]),
        ("/meshgate.v1.GenerationService/Generate", [GATEWAY]),
    ],
)
def test_everyone_else_is_refused(method: str, peers: list[str]) -> None:
    policy = PeerPolicy({"/meshgate.v1.EmbeddingService/*": [GATEWAY]})
    with pytest.raises(errors.PermissionDenied) as caught:
        policy.check(method, peers)
    assert caught.value.reason == "PEER_NOT_ALLOWED"


def test_an_empty_list_is_nobody() -> None:
    with pytest.raises(errors.PermissionDenied):
        PeerPolicy({}).check(EMBED, [GATEWAY])


def test_only_spiffe_names_count() -> None:
    names = [b"localhost", b"127.0.0.1", GATEWAY.encode()]
    assert spiffe_ids({"x509_subject_alternative_name": names}) == (GATEWAY,)
    assert spiffe_ids({}) == ()


class Context:
    """Of a call that the gateway makes."""

    def __init__(self) -> None:
        self.ended: list[grpc.StatusCode] = []

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_subject_alternative_name": [GATEWAY.encode()]}

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def set_trailing_metadata(self, _: object) -> None:
        return None

    async def abort(self, code: grpc.StatusCode, *_: object, **__: object) -> None:
        self.ended.append(code)
        raise grpc.aio.AbortError


def guarded(context: Context, work: Callable[[], Awaitable[None]]) -> Awaitable[None]:
    guard = Guard(PeerPolicy({EMBED: [GATEWAY]}), lambda: True, orca.Load())
    asked: Any = context
    return guard.run(EMBED, asked, work)


async def test_a_call_whose_work_was_dropped_is_answered() -> None:
    context, dropped = Context(), asyncio.get_running_loop().create_future()
    dropped.cancel()

    async def work() -> None:
        await dropped

    with pytest.raises(grpc.aio.AbortError):
        await guarded(context, work)
    assert context.ended == [grpc.StatusCode.UNAVAILABLE]


async def test_a_call_whose_caller_left_is_not() -> None:
    context, begun = Context(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    call = asyncio.ensure_future(guarded(context, work))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert context.ended == []
