"""One mesh to a state directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import certs
from meshgate.runtime.config import ConfigError


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Holds the state directory for one mesh; the kernel lets go of it however we end. Raises ConfigError when another
    has it.
    """
    certs.state_directory(home)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            by = lock.read(20).strip() or "unknown"
            raise ConfigError(
                f"a mesh already runs in {home} (process {by}); stop it, or start a second one beside it, with other "
                "ports and a state directory of its own: --offset 100 (make up ARGS='--offset 100'). "
                "Where MESHGATE_HOME is set, it must then name another directory"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
