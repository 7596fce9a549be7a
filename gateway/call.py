"""The record of one call: the stages fill it, and the audit reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from gateway.audit import ContentHmacs
from gateway.principal import Principal
from meshgate import errors

if TYPE_CHECKING:
    from gateway.limits.plan import ConcurrencyLimit
    from gateway.limits.store import Grant

_IDS: Final = 256
_ID_BYTES: Final = 16
_LATE_SECONDS: Final = 0.02
_LATE_PART: Final = 0.01


def _request_ids() -> Iterator[str]:
    """For one process, not one that forks. The kernel is asked for many at once: a system call each would be a
    hundredth of what a call costs.
    """
    while True:
        pool = os.urandom(_IDS * _ID_BYTES)
        for at in range(0, len(pool), _ID_BYTES):
            yield pool[at : at + _ID_BYTES].hex()


class Requests(Protocol):
    """The caller's messages, one after the other."""

    async def read(self) -> bytes | None:
        """The next message, or None when the caller has sent all."""


class Replies(Protocol):
    """The replies to the caller."""

    async def send(self, reply: bytes) -> None:
        """Sends one message; waits while the caller reads slowly."""


@dataclass(slots=True)
class Call:
    """One call, from its first byte to its last."""

    method: str
    """As called: for a sealed call SealedService's method."""
    peer: str
    authorization: str | None
    deadline: float | None
    """On time.monotonic's clock, or None where the caller set none."""
    certificate: str | None = None
    """Base64url SHA-256 of the caller's certificate (RFC 8705), where the edge asks for one."""
    request_id: str = field(default_factory=_request_ids().__next__)
    """128 random bits in hexadecimal."""
    inside: bool = False
    """Whether the admission gate counts it: see gateway.edge.concurrency."""
    principal: Principal | None = None
    drained: bool = False
    """Whether it was ended because the gateway stops."""
    slots: tuple[ConcurrencyLimit, ...] = ()
    """The slots that it holds of its caller's concurrency limits in this process: see gateway.limits.pending."""
    held: Grant | None = None
    """The same in the store, where it took them before it began: see gateway.limits.shared_pending."""
    admitted: bool = False
    """Whether policy let it through."""
    target: str = ""
    """The method that does the work: `method`, or the one inside the envelope."""
    model: str = ""
    sealing_key_id: str = ""
    relayed: bool = False
    """Whether it is sealed to the service, which must then know whose it is."""
    limits: str = ""
    """How the limits were decided, where not as they should be: `local` while the store was down."""
    tokens_reserved: int = 0
    token_cap: int = 0
    """The most tokens that the service may take; 0 is no cap."""
    input_tokens: int = 0
    output_tokens: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    trailers: tuple[tuple[str, str], ...] = ()
    """Metadata that a call which ends well ends with."""
    hmacs: ContentHmacs | None = None
    """The keyed digests of what passes, once the call is admitted."""
    stages: dict[str, int] = field(default_factory=dict)
    """Stage to microseconds."""
    _mark: int = field(default_factory=time.perf_counter_ns)
    _arrived: float = field(default_factory=time.monotonic)

    def mark(self, stage: str) -> None:
        """Books the time since the last mark under `stage`."""
        now = time.perf_counter_ns()
        self.stages[stage] = (now - self._mark) // 1000
        self._mark = now

    @property
    def over(self) -> bool:
        """Whether the caller's deadline has passed, so that no answer reaches it."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def late(self) -> bool:
        """Whether a call that is cancelled now is cancelled by its deadline: gRPC does that as if the caller had left.

        The caller's own clock may do it a little before ours. The call was under way before it came here, and gRPC
        rounds a timeout up by as much as a hundredth when it sends it.
        """
        if self.deadline is None:
            return False
        slack = _LATE_SECONDS + _LATE_PART * (self.deadline - self._arrived)
        return time.monotonic() >= self.deadline - slack

    def remaining(self) -> float | None:
        """Seconds until the caller's deadline, or None. Raises DeadlineExceeded when none are left."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise errors.DeadlineExceeded("the deadline passed")
        return left
