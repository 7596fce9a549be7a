"""`python -m certs [--home DIR] [--renew] [--days N]`: makes or renews the development certificates."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from certs.authority import LOCAL, NAMES, ensure


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are safe to print: they hold no control characters."""

    def error(self, message: str) -> NoReturn:
        super().error(_shown(message))


def _shown(text: str) -> str:
    """`text` with every character escaped that is not printable ASCII."""
    return "".join(letter if letter == "\n" or " " <= letter <= "~" else ascii(letter)[1:-1] for letter in text)


def main() -> int:
    """The exit status: 0 when every certificate exists."""
    parser = _Parser(prog="python -m certs", description="Makes the development certificates.")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("MESHGATE_HOME") or ".meshgate"))
    parser.add_argument("--renew", action="store_true", help="also replace those that are still good")
    parser.add_argument(
        "--local",
        action="append",
        default=[*LOCAL],
        choices=NAMES,
        help="a part whose leaf shall also name localhost, until the next `up`; the gateway's always does",
    )
    parser.add_argument("--days", type=int, default=7, choices=range(1, 91), metavar="1..90", help="life of a leaf")
    flags = parser.parse_args()
    try:
        made = ensure(flags.home, local=flags.local, life=timedelta(days=flags.days), renew=flags.renew)
    except OSError as error:
        sys.stderr.write(_shown(f"certs: {error.filename}: {error.strerror}") + "\n")
        return 1
    said = f"{flags.home / 'certs'}: made {', '.join(made) or 'nothing, all still good'}"
    sys.stdout.write(f"{_shown(said)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
