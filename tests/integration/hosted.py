"""Models for tests of the host, loaded by their names in a process of their own."""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import torch

from meshgate.runtime.config import ConfigError
from services.model_process.host import Loaded

_GET_DUMPABLE = 3
_MEETING = threading.Barrier(2)
_alive: weakref.WeakSet[Model] = weakref.WeakSet()


class Model:
    """Answers with what it was loaded with, and what is asked."""

    def __init__(self, word: str) -> None:
        self.word = word
        _alive.add(self)

    def run(self, batch: Any) -> Any:
        """`alive`: how many models are. `pid`, `threads`: of the process. `fail`, `end`, `hang`: as they say.
        `hardened`: whether it can be dumped, and how large. `stderr`: writes there.
        `meet`: once another one runs.
        """
        match batch:
            case "alive":
                return len(_alive)
            case "pid":
                return os.getpid()
            case "threads":
                return torch.get_num_threads()
            case "hardened":
                return ctypes.CDLL(None).prctl(_GET_DUMPABLE, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)
            case "stderr":
                os.write(2, f"{self.word}\n".encode())
            case "memory":
                raise torch.OutOfMemoryError(f"no room for {self.word}")
            case "fail":
                raise ValueError(f"what is {self.word}?")
            case "secret":
                return lambda: self.word  # can't be told
            case "meet":
                return _MEETING.wait(30)
            case "end":
                os._exit(7)
            case "hang":
                print("hanging", flush=True)
                time.sleep(3600)
        return self.word, batch


def load(word: str) -> Loaded:
    return Loaded({"word": word}, Model(word).run)


def refused(word: str) -> Loaded:
    raise ConfigError(f"model.source: {word}: no such directory")


def untold(word: str) -> Loaded:
    return Loaded(lambda: word, Model(word).run)


def failed(word: str) -> Loaded:
    raise ValueError(f"what is {word}?")


def after(word: str, pipe: Path) -> Loaded:
    """Loads once something was written to a named pipe."""
    pipe.read_bytes()
    return load(word)
