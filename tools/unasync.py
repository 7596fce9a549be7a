"""Generates the blocking half of the SDK from the asyncio half: `python -m tools.unasync --write`.

Without `--write` it proves that what is committed is what it would generate.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parent.parent
_WRITTEN: Final = _ROOT / "meshgate" / "client" / "aio"
_GENERATED: Final = _ROOT / "meshgate" / "client" / "blocking"
_FILES: Final = ("caller.py", "sealed.py", "token_source.py")
_HEADER: Final = "# Generated from meshgate/client/aio/{name} by `make sdk`. Change that file, not this one.\n"

_TABLE: Final = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bgrpc\.aio\.AioRpcError\b", "grpc.RpcError"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\bmeshgate\.client\.aio\b", "meshgate.client.blocking"),
    (r"\bAsync(Iterator|TokenOrigin|TokenSource)\b", r"\1"),
    # grpc.aio alone lets callers write requests instead of giving an iterator of them
    (r"\brequest_iterator: Any = None\b", "request_iterator: Any"),
)
"""Patterns and what replaces them, in this order."""


def main(arguments: list[str]) -> int:
    """0 when every file is fresh, or was written; otherwise names those that are not."""
    stale = [name for name in _FILES if not _fresh(name)]
    for name in stale:
        if "--write" in arguments:
            (_GENERATED / name).write_text(generate(name))
        else:
            print(f"{name}: not what meshgate/client/aio generates; run `make sdk`", file=sys.stderr)
    return 1 if stale and "--write" not in arguments else 0


def _fresh(name: str) -> bool:
    path = _GENERATED / name
    return path.exists() and path.read_text() == generate(name)


def generate(name: str) -> str:
    """The blocking form of a file, formatted."""
    return _formatted(_HEADER.format(name=name) + blocking((_WRITTEN / name).read_text()), _GENERATED / name)


def blocking(source: str) -> str:
    """Asyncio source without its waiting. Raises ValueError where something asynchronous is left."""
    for pattern, replacement in _TABLE:
        source = re.sub(pattern, replacement, source)
    if (left := re.search(r"\b(async|await|asyncio|aio|__a\w+__)\b", source.replace("client/aio", ""))) is not None:
        raise ValueError(f"{left[0]!r} has no blocking form")
    return source


def _formatted(source: str, path: Path) -> str:
    """Sorted imports and the project's format."""
    return _ruff(_ruff(source, "check", "--select=I", "--fix", "--quiet", path=path), "format", path=path)


def _ruff(source: str, *arguments: str, path: Path) -> str:
    command = [str(Path(sys.executable).parent / "ruff"), *arguments, f"--stdin-filename={path}", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
