"""The connection of an example to its gateway, and its end: one line that says what went wrong.

MESHGATE_TARGET and MESHGATE_CA say where the gateway is and which CA to believe, MESHGATE_TOKEN or MESHGATE_TOKEN_FILE
who calls: the same variables as the `meshgate` command has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import grpc

from meshgate import client, errors, terminal
from meshgate.runtime.config import ConfigError


def run(main: Callable[[grpc.Channel], None], *, sealed: bool = False) -> None:
    """Runs `main` on a channel to the gateway. Exits with status 1 and a sentence where that fails."""
    target = ""
    try:
        settings = client.settings()
        target = settings["target"]
        with client.connect(**settings, sealed=sealed) as channel:
            main(channel)
    except grpc.RpcError as error:
        fail(client.explain(error, target).message)
    except (ConfigError, errors.MeshError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else "input or output failed")


def say(text: str, *, piece: bool = False) -> None:
    """Prints what a model or a file says. A terminal gets none of the characters that it would obey."""
    sys.stdout.write(terminal.escaped(text, piece=piece) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def fail(what: str) -> NoReturn:
    """Ends the example with a sentence for its user."""
    sys.exit(terminal.line(f"meshgate: {what}"))
