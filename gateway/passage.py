"""What passes between an admitted caller and who answers: opened on the way in, sealed on the way out."""

from __future__ import annotations

from gateway.call import Call, Replies, Requests
from gateway.envelope import Exchange


class Passage:
    """Both directions of one call, in the clear on the side of the forwarder, and digested there for the audit.

    Digests are of what was said, not of how it was sealed, so that a text can be matched with its record later. What
    is sealed to a service stays sealed here, and that is what is digested.
    """

    __slots__ = ("_exchange", "_macs", "_replies", "_requests")

    def __init__(self, call: Call, exchange: Exchange, requests: Requests, replies: Replies) -> None:
        """Digests the first message. Raises RuntimeError for a call that was not admitted."""
        if call.macs is None:
            raise RuntimeError("only what is admitted passes")
        self._exchange = exchange
        self._macs = call.macs
        self._requests = requests
        self._replies = replies
        self._macs.request.update(exchange.inner.first)

    async def read(self) -> bytes | None:
        """The next request after the first, or None when the caller has sent all. Raises MeshError."""
        message = self._exchange.unseal(await self._requests.read())
        if message is not None:
            self._macs.request.update(message)
        return message

    async def send(self, reply: bytes) -> None:
        """Passes a reply on, or keeps it for the end where the seal wants that. Waits while the caller reads slowly."""
        self._macs.reply.update(reply)
        sealed = self._exchange.seal(reply)
        if sealed is not None:
            await self._replies.send(sealed)
