"""The other ranks: they run what the leader runs, and throw away what comes out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.generation.parallel import command

if TYPE_CHECKING:
    from services.generation.engine.loaded_model import LoadedModel


class CommandReceiver(Protocol):
    """What a follower needs of the ranks."""

    def listen(self) -> list[int]: ...


def follow(model: LoadedModel, line: CommandReceiver) -> None:
    """Returns when the leader stops. Raises RuntimeError when it is gone, and whatever the model raises."""
    model.enter_thread()
    while True:
        step, arguments = command.decode(line.listen())
        if step == command.STOP:
            return
        getattr(model, command.STEPS[step])(*arguments)
