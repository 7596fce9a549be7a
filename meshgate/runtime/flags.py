"""The command line of a process that is no `meshgate` command."""

from __future__ import annotations

import argparse
from typing import NoReturn

from meshgate import terminal


class Parser(argparse.ArgumentParser):
    """A parser whose errors repeat what was typed, and nothing that a terminal would obey."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        super().error(terminal.line(message))
