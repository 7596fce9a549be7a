"""The proof, without a network, that the lock files fit pyproject.toml and each other, each line with its hashes.

`python -m tools.fresh_locks` prints each thing that does not fit, and returns 1. It finds a lock that was not
resolved anew after pyproject.toml changed. It does not find that a newer release exists.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
TORCH: Final = "requirements-torch.lock"
"""The one lock without hashes: docs/release.md says why."""
LOCKS: Final[Mapping[str, tuple[str, ...]]] = {
    "requirements.lock": ("gateway", "services", "local"),
    "requirements-dev.lock": ("gateway", "services", "dev"),
    "requirements-docs.lock": ("docs",),
    "requirements-bench.lock": ("gateway", "bench"),
    "deploy/gateway.lock": ("gateway",),
    "deploy/services.lock": ("services",),
}
"""Each lock that is resolved from pyproject.toml, with its extras."""
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?:[ \\\n]+--hash=sha256:[0-9a-f]{64})*)", re.MULTILINE)


def main() -> int:
    """0 when every lock fits."""
    found = list(problems(ROOT))
    for problem in found:
        print(f"{problem}; run `make lock`", file=sys.stderr)
    return 1 if found else 0


def problems(root: Path) -> Iterator[str]:
    """One line for each thing that does not fit."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = pins(root / TORCH)
    versions: dict[str, tuple[str, str]] = {name: (version, TORCH) for name, version in torch.items()}
    for lock, extras in LOCKS.items():
        yield from without_hash(root / lock, lock)
        locked = pins(root / lock)
        yield from unmet(project, extras, torch | locked, lock)
        for name, version in locked.items():
            first, where = versions.setdefault(name, (version, lock))
            if first != version:
                yield f"{lock}: {name} is {version}, and {first} in {where}"
    for other in (root / "requirements-models.lock", *sorted((root / "bench/services/peers").glob("*.lock"))):
        yield from without_hash(other, str(other.relative_to(root)))


def pins(lock: Path) -> dict[str, str]:
    """The version of each package in a lock."""
    return {canonicalize_name(name): version for name, version, _ in _PIN.findall(lock.read_text(encoding="utf-8"))}


def without_hash(lock: Path, shown: str) -> Iterator[str]:
    """A line for each pin without a hash."""
    for name, _, hashes in _PIN.findall(lock.read_text(encoding="utf-8")):
        if not hashes:
            yield f"{shown}: {name} has no hash"


def unmet(
    project: Mapping[str, object], extras: tuple[str, ...], locked: Mapping[str, str], shown: str
) -> Iterator[str]:
    """A line for each requirement of these extras that the lock does not meet."""
    for requirement in requirements(project, extras):
        version = locked.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"{shown}: {requirement.name} is missing"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{shown}: {requirement.name} is {version}, and pyproject.toml asks for {requirement.specifier}"


def requirements(project: Mapping[str, object], extras: tuple[str, ...]) -> Iterator[Requirement]:
    """The requirements of the project and these extras on this platform."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    for line in (*project["dependencies"], *(line for extra in extras for line in optional[extra])):  # type: ignore[misc]
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement


if __name__ == "__main__":
    sys.exit(main())
