"""Streams whose end is the one that the other side gave it.

Where the server ends a call while its client still writes, grpc.aio (1.85 and before) takes the write that fails for a
fault of its own, and puts INTERNAL in the place of the status that is just on its way. So who is refused would not hear
why. Here such a write waits for the status instead.

This leans on names of grpcio that are not public; tests/integration/rpc/test_refused_stream.py fails where a new grpcio
goes another way.
"""

from __future__ import annotations

import contextlib
from typing import Any

import grpc


class _Patient:
    """grpc.aio's inner call, in all but what it does when a write fails."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def set_internal_error(self, text: str) -> None:
        """Nothing: what failed is done for, and its status comes. grpc.aio waits for it next."""

    async def send_receive_close(self) -> None:
        with contextlib.suppress(grpc.aio.InternalError):  # the call has ended, and so has writing
            await self._inner.send_receive_close()


def preserve_status(call: Any) -> Any:
    """`call`, a call whose client streams that has just been made, with the status that its server will give it."""
    call._cython_call = _Patient(call._cython_call)
    return call
