"""A conversation's memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass
class Talk:
    """What was said so far. A turn is never empty, and the user's and the model's take turns."""

    system: str = ""
    said: list[tuple[Role, str]] = field(default_factory=list)

    @property
    def turns(self) -> list[tuple[Role, str]]:
        """All turns, the instructions first."""
        first: list[tuple[Role, str]] = [("system", self.system)] if self.system else []
        return [*first, *self.said]

    def ask(self, text: str) -> None:
        """The user's turn."""
        self.said.append(("user", text))

    def answer(self, text: str) -> None:
        """The model's turn. A question that got no answer is taken back."""
        if text:
            self.said.append(("assistant", text))
        else:
            self.said.pop()

    def forget_oldest(self) -> bool:
        """Drops the oldest question with its answer. False where only the newest question is left."""
        if len(self.said) < 3:
            return False
        del self.said[:2]
        return True

    def clear(self) -> None:
        """Begins anew, with the same instructions."""
        self.said.clear()
