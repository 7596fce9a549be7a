"""What a service and the process of its models say to each other, pickled: each message has one reply."""

from __future__ import annotations

from typing import Any, NamedTuple

from services.batching.error_kinds import Fault


class Load(NamedTuple):
    """Answered with the model's number and its facts."""

    function: str
    args: tuple[Any, ...]


class Run(NamedTuple):
    """Answered with what the model made of the batch."""

    number: int
    batch: Any


class Drop(NamedTuple):
    """Frees a model. Answered with nothing."""

    number: int


class Done(NamedTuple):
    """It went well."""

    value: Any


class Refused(NamedTuple):
    """The configuration can't be used; the text says why."""

    text: str


class Failed(NamedTuple):
    """Anything else; the log of who says it tells what."""

    fault: Fault


Reply = Done | Refused | Failed
