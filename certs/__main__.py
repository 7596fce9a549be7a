"""`python -m certs [--home DIR] [--renew] [--days N]`: makes or renews the development certificates."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path

from certs.authority import LOCAL, NAMES, ensure


def main() -> int:
    """0 when everything is there."""
    parser = argparse.ArgumentParser(prog="python -m certs", description="Makes the development certificates.")
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
        sys.stderr.write(f"certs: {error.filename}: {error.strerror}\n")
        return 1
    sys.stdout.write(f"{flags.home / 'certs'}: made {', '.join(made) or 'nothing, all still good'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
