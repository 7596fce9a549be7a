"""Where everything is started: a state directory, and what the machine is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench import process


class Absent(Exception):
    """It can't be measured here; the text says why."""


_SPINS: Final = "2000"
"""As services/cpu/openmp.py has it, which changes the environment of who imports it."""


@dataclass(frozen=True)
class Place:
    """What is started in it ends with `stack`."""

    home: Path
    stack: ExitStack
    device: str
    dtype: str
    """The number format that the services choose on that device; everybody gets it."""
    notes: list[str] = field(default_factory=list)
    """What was left out and why."""

    def within(self, stack: ExitStack) -> Place:
        """The same place, where what is started ends sooner."""
        return replace(self, stack=stack)

    def run(self, name: str, command: tuple[str, ...], environment: Mapping[str, str] | None = None) -> int:
        """Starts a process whose log is `name`.log; returns its pid."""
        return self.stack.enter_context(process.running(command, self.log(name), environment))

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.home / f"{name}.log"

    def environment(self, **changes: str) -> dict[str, str]:
        """Ours, with a thread a core, and in which nobody looks for models on the network."""
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
        return {**os.environ, "OMP_NUM_THREADS": str(cores()), **offline, **changes}

    def shared(self, **changes: str) -> dict[str, str]:
        """Likewise for a server, which shares the cores with who calls it: its threads soon sleep where they wait for
        each other, as those of the services do. Others' spin, as is OpenMP's way, unless OMP_WAIT_POLICY says
        otherwise.
        """
        return self.environment(OMP_WAIT_POLICY="ACTIVE", GOMP_SPINCOUNT=_SPINS, **changes)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
