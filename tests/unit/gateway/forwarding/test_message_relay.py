"""The first reply waits for the record of the call's beginning, and nothing after it does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.audit import ContentHmac, ContentHmacs
from gateway.call import Call
from gateway.forwarding.message_relay import MessageRelay
from gateway.sealing.stage import PlainCodec
from meshgate.errors import Unavailable
from meshgate.v1 import generation_pb2
from tests.support.fixtures.limits import call_of, wanted


class Replies:
    """What reached the caller."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, reply: bytes) -> None:
        self.sent.append(reply)


class Sealed(PlainCodec):
    """Keeps replies back, and ends with a message of its own."""

    def seal(self, reply: bytes) -> bytes | None:
        return None

    def finish(self, call: Call) -> bytes | None:
        return b"last"


class Beginning:
    """A record that is on disk when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.safe = asyncio.Event()
        self.fails = False

    async def __call__(self) -> None:
        self.asked += 1
        await self.safe.wait()
        if self.fails:
            raise Unavailable("no", reason="AUDIT_UNAVAILABLE")


def passage(replies: Replies, recorded: Any, kind: type[PlainCodec] = PlainCodec) -> MessageRelay:
    asked = wanted(generation_pb2.GenerateRequest(prompt="a"))
    call = call_of(asked)
    call.hmacs = ContentHmacs(ContentHmac(bytes(32), "request"), ContentHmac(bytes(32), "reply"), "0" * 16)
    unused: Any = None
    return MessageRelay(call, kind(asked), unused, unused, replies, lambda _: None, recorded)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_reply_waits_and_no_other() -> None:
    replies, beginning = Replies(), Beginning()
    made = passage(replies, beginning)
    sending = asyncio.create_task(made.send(b"one"))
    await turns()
    assert (replies.sent, beginning.asked) == ([], 1)
    beginning.safe.set()
    await sending
    await made.send(b"two")
    await made.finish()
    assert (replies.sent, beginning.asked) == ([b"one", b"two"], 1)


async def test_where_only_the_end_is_said_that_waits() -> None:
    replies, beginning = Replies(), Beginning()
    made = passage(replies, beginning, Sealed)
    await made.send(b"kept")
    assert beginning.asked == 0
    ending = asyncio.create_task(made.finish())
    await turns()
    assert (replies.sent, beginning.asked) == ([], 1)
    beginning.safe.set()
    await ending
    assert replies.sent == [b"last"]


async def test_what_is_not_on_record_is_not_said() -> None:
    replies, beginning = Replies(), Beginning()
    beginning.fails = True
    beginning.safe.set()
    made = passage(replies, beginning)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await made.send(b"one")
    assert replies.sent == []


async def test_a_single_reply_waits_for_nothing_here() -> None:
    replies = Replies()
    await passage(replies, None).send(b"one")
    assert replies.sent == [b"one"]
