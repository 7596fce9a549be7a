"""Which configuration commands of the gateway's read: that of the mesh which runs from this state directory.

`meshgate up` records there what it was started with. If no mesh was started from the directory, the commands read
deploy/config of a source tree, else /etc/meshgate. `--config` names another file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.config import GatewayConfig
from meshgate import state
from meshgate.runtime import config as configs

HELP: Final = "The gateway's configuration. Default: the one that the mesh of this state directory was started with."
_FILE: Final = "gateway.toml"


def in_use(given: Path | None, backends: Sequence[str] = ()) -> tuple[Path, GatewayConfig]:
    """The file and what it says, with what `up` told the gateway beside it. `backends` are as `python -m gateway` takes
    them by --backend. Raises ConfigError.
    """
    path, loaded = _found(given)
    targets = dict(item.partition("=")[::2] for item in backends)
    return path, loaded.with_overrides(None, targets) if targets else loaded


def _found(given: Path | None) -> tuple[Path, GatewayConfig]:
    if given is not None:
        return given, configs.load(given, GatewayConfig)
    mesh = state.running(state.home())
    if mesh is None:
        path = _shipped()
        return path, configs.load(path, GatewayConfig)
    path = Path(mesh.config_dir) / _FILE
    loaded = configs.load(path, GatewayConfig)
    return path, loaded.with_overrides(mesh.target, mesh.backends, store=mesh.store or None)


def _shipped() -> Path:
    path = state.default_configs() / _FILE
    if not path.is_file():
        raise configs.ConfigError(
            f"{state.home()}: no mesh was started from this state directory; say with --config where the gateway's "
            "configuration is, or set MESHGATE_HOME"
        )
    return path
