"""The `python -m ...` of every process: read the configuration, run, and say in one line why it could not."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

import uvloop

from meshgate.rpc import listen_address
from meshgate.rpc.private import poller_wakeup
from meshgate.runtime import config, startup
from meshgate.runtime.flags import Parser
from meshgate.runtime.watchdog import Watchdog

_log = logging.getLogger(__name__)

BAD_CONFIG: Final = 2
"""The exit status of a process whose configuration can't be used."""

_GC_THRESHOLDS: Final = (10_000, 20, 20)
"""New objects per collection of the youngest generation, and collections of each generation per one of the next."""


def arguments(name: str) -> argparse.ArgumentParser:
    """The flags that every process has."""
    parser = Parser(prog=f"python -m {name}")
    parser.add_argument("--config", type=Path, required=True, help="TOML file")
    parser.add_argument(
        "--listen", type=listen_address.flag, metavar="HOST:PORT", help="overrides the configuration's listen address"
    )
    parser.add_argument(
        "--metrics",
        type=listen_address.tcp_flag,
        metavar="HOST:PORT",
        help="overrides where Prometheus finds the process",
    )
    return parser


def overridden(settings: config.ConfigT, flags: argparse.Namespace) -> config.ConfigT:
    """The configuration with the addresses that the flags of `arguments` name."""
    given = {"server": flags.listen, "metrics": flags.metrics}
    changes = {
        section: getattr(settings, section).model_copy(update={"listen": listen})
        for section, listen in given.items()
        if listen is not None
    }
    return settings.model_copy(update=changes)


def run(name: str, path: Path, main: Callable[[], Coroutine[None, None, int]]) -> int:
    """Runs `main` with logging set up; `path` is its configuration. A ConfigError is a line for each problem, with that
    file's name, and exit status 2.
    """
    startup.begin(name)
    poller_wakeup.install()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_watched(main))
    except config.ConfigError as error:
        for line in config.located(error, path):
            _log.error(line)
        return BAD_CONFIG
    except KeyboardInterrupt:
        return 0
    except Exception:
        _log.exception("stopped by an error")
        return 1
    finally:
        startup.end()


def tune_gc() -> None:
    """Tunes the garbage collector once a process has started.

    The objects of the start live as long as the process, so the collector need not visit them again. A call leaves next
    to no cycles, so the collector runs less often than Python's default. docs/adr/0109 has the figures.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _watched(main: Callable[[], Coroutine[None, None, int]]) -> int:
    watchdog = Watchdog()
    watchdog.start()
    try:
        return await main()
    finally:
        watchdog.stop()
