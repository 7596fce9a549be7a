"""The relay of messages between an admitted caller and the service. It calls four stages back: seal and limits for
messages, the journal before the first reply, and authentication once a second, for tokens that were revoked meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.call import Call, Replies, Requests
from gateway.limits import Reservation
from gateway.sealing.stage import MessageCodec

_LOOK_SECONDS: Final = 1.0

Standing = Callable[[Call], None]
"""Raises MeshError when a call that was admitted may not go on."""

Recorded = Callable[[], Awaitable[None]]
"""Returns when a call's beginning is on record. Raises MeshError when it can't be."""


class MessageRelay:
    """Both directions of one call, in the clear on the side of the forwarder, and digested there for the audit.

    Digests are of the clear text, not of its sealed form, so that a text can be matched with its record later. A
    message that is sealed to a service stays sealed here, and its digest is of the sealed form.

    The first reply waits until the audit has the record of the admitted call.
    """

    __slots__ = (
        "_call",
        "_exchange",
        "_hmacs",
        "_look_at",
        "_recorded",
        "_replies",
        "_requests",
        "_reservation",
        "_standing",
    )

    def __init__(
        self,
        call: Call,
        exchange: MessageCodec,
        reservation: Reservation,
        requests: Requests,
        replies: Replies,
        standing: Standing,
        recorded: Recorded | None = None,
    ) -> None:
        """Digests the first message. `recorded` None: what is sent here does not reach the caller before the end.

        Raises RuntimeError for a call that was not admitted.
        """
        if call.hmacs is None:
            raise RuntimeError("only what is admitted passes")
        self._call = call
        self._reservation = reservation
        self._standing = standing
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._exchange = exchange
        self._hmacs = call.hmacs
        self._recorded = recorded
        self._requests = requests
        self._replies = replies
        self._hmacs.request.update(exchange.inner.first)

    async def read(self) -> bytes | None:
        """The next request after the first, paid for, or None when the caller has sent all. Raises MeshError."""
        sent = await self._requests.read()
        message = self._exchange.unseal(sent)
        while message is None and sent is not None:  # sealed, it may say that this was all; then nothing may follow
            sent = await self._requests.read()
            message = self._exchange.unseal(sent)
        if message is not None:
            self._look()
            await self._reservation.more(self._call, message)
            self._hmacs.request.update(message)
        return message

    async def send(self, reply: bytes) -> None:
        """Passes a reply on, or keeps it for the end where the seal wants that. Waits while the caller reads slowly."""
        self._look()
        self._hmacs.reply.update(reply)
        await self._reply(self._exchange.seal(reply))

    async def finish(self) -> None:
        """Passes on what comes after the last reply: what the seal kept for the end, or that this was all."""
        await self._reply(self._exchange.finish(self._call))

    async def _reply(self, sealed: bytes | None) -> None:
        if sealed is None:
            return
        if self._recorded is not None:
            await self._recorded()
            self._recorded = None
        await self._replies.send(sealed)

    def _look(self) -> None:
        """Long calls are looked at again, at most once a second: what let them in may hold no longer."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._standing(self._call)
