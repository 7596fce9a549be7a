"""Proves that the committed stubs are what the contract generates: `python -m tools.fresh_stubs`."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_COMMITTED = _ROOT / "meshgate" / "v1"


def main() -> int:
    """0 when every stub is fresh; otherwise names those that are not."""
    with tempfile.TemporaryDirectory() as made:
        generate(Path(made))
        stale = compare(Path(made) / "meshgate" / "v1", _COMMITTED)
    for name in stale:
        print(f"{name}: not what the contract generates; run `make proto`", file=sys.stderr)
    return 1 if stale else 0


def generate(into: Path) -> None:
    """Writes the stubs of every .proto file under `into`."""
    plugins = [f"--plugin={name}={Path(sys.executable).parent / name}" for name in _PLUGINS]
    outputs = [f"--{kind}_out={into}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{into}" for kind in ("mypy", "mypy_grpc")]
    sources = [str(path) for path in sorted((_ROOT / "protos").glob("meshgate/v1/*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(_ROOT / "protos"), *plugins, *outputs, *sources]
    subprocess.run(command, check=True)


_PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def compare(made: Path, committed: Path) -> list[str]:
    """The names of the files that differ, or that only one side has."""
    names = {path.name for folder in (made, committed) for path in folder.glob("*_pb2*.py*")}
    names = {name for name in names if not name.endswith(".pyc")}
    return sorted(
        name
        for name in names
        if not ((made / name).exists() and (committed / name).exists())
        or not filecmp.cmp(made / name, committed / name, shallow=False)
    )


if __name__ == "__main__":
    sys.exit(main())
