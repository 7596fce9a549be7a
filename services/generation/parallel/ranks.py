"""The processes of one model, as torchrun started them, and the line on which the first tells the others what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from meshgate.runtime.config import ConfigError

_STEP: Final = timedelta(seconds=120)
"""How long one may wait for the others within a step. Longer, and one is lost without having closed its connection."""
_IDLE: Final = timedelta(days=3650)
"""How long followers wait for a command: for ever. A leader that is gone closes the line, and that is noticed."""


class Ranks:
    """The place of a process among the ranks of a model."""

    def __init__(self, size: int) -> None:
        """Meets the others. Raises ConfigError unless torchrun started exactly `size` ranks on this machine."""
        self.size = size
        check(size)
        try:
            _join()
            self._line = dist.new_group(backend="gloo", timeout=_IDLE)
        except (RuntimeError, ValueError) as error:
            raise ConfigError("engine.tensor_parallel: the ranks did not meet") from error
        self.rank = dist.get_rank()

    def tell(self, words: Sequence[int]) -> None:
        """Sends a command to every other rank. Raises RuntimeError when one is gone."""
        self._broadcast(torch.tensor([len(words)]))
        self._broadcast(torch.tensor(words))

    def listen(self) -> list[int]:
        """The leader's next command. Raises RuntimeError when the leader is gone."""
        size = torch.zeros(1, dtype=torch.int64)
        self._broadcast(size)
        words = torch.zeros(int(size), dtype=torch.int64)
        self._broadcast(words)
        return [int(word) for word in words]

    def close(self) -> None:
        """Leaves the others. Nothing may be told or heard after it."""
        dist.destroy_process_group()

    def _broadcast(self, words: torch.Tensor) -> None:
        dist.broadcast(words, src=0, group=self._line)


def _join() -> None:
    """Each rank has the GPU of its number on this machine, or all share the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=_STEP, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=_STEP)


def check(size: int) -> None:
    """Raises ConfigError when the processes that torchrun started are not `size`: each would serve by itself."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != size:
        raise ConfigError(
            f"engine.tensor_parallel: {size}, but {started} ranks were started; start it with"
            f" torchrun --nproc-per-node {size} -m services.generation ..."
        )
