"""The stages of a call, in order. The pipeline runs them, and `meshgate policy explain` answers for their steps.

Records and metrics have the time of each stage under its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.authentication import STEPS

AUTHENTICATE: Final = "authenticate"
ENTER: Final = "enter"
READ: Final = "read"
AUTHORISE: Final = "authorise"
RESERVE: Final = "reserve"
OPEN: Final = "open"
FORWARD: Final = "forward"
END: Final = "end"

STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    AUTHENTICATE: STEPS,
    ENTER: ("method",),
    READ: (),
    AUTHORISE: ("scope", "sealed", "model"),
    RESERVE: (),
    OPEN: (),
    FORWARD: (),
    END: (),
}
"""Each stage, with the steps that can be explained without a call. Only a running gateway can answer for the others."""
EXPLAINED: Final = tuple(step for steps in STAGES.values() for step in steps)
"""All steps of an explanation, in order."""
