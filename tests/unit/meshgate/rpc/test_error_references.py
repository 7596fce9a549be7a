"""What errors hold of the calls that they ended."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from meshgate import errors
from meshgate.rpc import guard


class Message:
    """Stands for megabytes."""


def failed(kept: list[Any]) -> weakref.ref[Message]:
    message = Message()
    try:
        try:
            raise KeyError("what came before")
        except KeyError as cause:
            raise errors.InvalidArgument("refused") from cause
    except errors.MeshError as error:
        kept.append(error)  # as a frame that goes on holds it
    return weakref.ref(message)


def test_a_refused_message_is_gone_without_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        kept: list[Any] = []
        message = failed(kept)
        assert message() is not None
        guard.let_go(kept[0])
        assert message() is None
    finally:
        gc.enable()
