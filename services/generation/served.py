"""The one model that a process serves, as its servicers see it. It is registered before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from meshgate.errors import Unavailable
from services.generation.engine import Engine
from services.generation.limits import Limits
from services.generation.permits import Permits
from services.generation.prompt import PromptReader
from services.generation.tokenising import Tokenising


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model and what stands before it. `permits` weighs candidates."""

    engine: Engine
    prompts: PromptReader
    limits: Limits
    permits: Permits
    tokenising: Tokenising
    dtype: str


class Place:
    """Where the loaded model will be."""

    def __init__(self) -> None:
        self.served: Served | None = None

    def get(self) -> Served:
        """Raises Unavailable (STARTING) before the model is loaded."""
        if self.served is None:
            raise Unavailable("the model is not ready", reason="STARTING", retry_after=1.0)
        return self.served
