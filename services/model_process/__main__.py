"""`python -m services.model_process NAME LOADS RUNS...`: the process that SubprocessHost starts. It ends when whoever
started it does.
"""

from __future__ import annotations

import os

import meshgate.rpc.tls13
import meshgate.runtime.logs.verbosity  # noqa: F401 - both before grpc
import services.common.environment  # before the libraries of models
import services.cpu.openmp  # noqa: F401 - before torch

# isort: split
from multiprocessing.connection import Connection

from meshgate.runtime import startup
from meshgate.runtime.flags import Parser
from services.cpu import malloc_tuning
from services.model_process import parent_death
from services.model_process.worker_loop import WorkerLoop


def main() -> None:
    """Loads on one thread and runs on others, so that what is loaded serves while another loads."""
    parser = Parser(prog="python -m services.model_process")
    parser.add_argument("name")
    parser.add_argument("loads", type=int)
    parser.add_argument("runs", type=int, nargs="+")
    flags = parser.parse_args()
    parent_death.end_with_parent()
    startup.begin(flags.name)
    malloc_tuning.keep()
    WorkerLoop(Connection(flags.loads), [Connection(number) for number in flags.runs]).serve()
    startup.end()
    os._exit(0)  # a model that is being loaded need not be finished


if __name__ == "__main__":
    main()
