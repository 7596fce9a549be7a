"""What passes between an admitted caller and who answers: opened on the way in, sealed on the way out."""

from __future__ import annotations

from gateway.call import Replies, Requests
from gateway.envelope import Exchange


class Passage:
    """Both directions of one call, in the clear on the side of the forwarder."""

    __slots__ = ("_exchange", "_replies", "_requests")

    def __init__(self, exchange: Exchange, requests: Requests, replies: Replies) -> None:
        self._exchange = exchange
        self._requests = requests
        self._replies = replies

    async def read(self) -> bytes | None:
        """The next request after the first, or None when the caller has sent all. Raises MeshError."""
        return self._exchange.unseal(await self._requests.read())

    async def send(self, reply: bytes) -> None:
        """Passes a reply on, or keeps it for the end where the seal wants that. Waits while the caller reads slowly."""
        sealed = self._exchange.seal(reply)
        if sealed is not None:
            await self._replies.send(sealed)
