"""A model of the Hugging Face hub: from the local cache, and fetched only where the configuration says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import services.common.environment  # before huggingface_hub

# isort: split
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from meshgate.runtime.config import ConfigError
from services.models.config import SourceConfig

_CAUSES: Final = 8
_UNAUTHORIZED: Final = 401
_SAID: Final = 200
"""The most letters of what a library says."""
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_NOWHERE: Final = "no such directory, nor in the local cache"


def fetched(config: SourceConfig, key: str, patterns: list[str]) -> Path:
    """The directory of a snapshot with the files that match `patterns`. Raises ConfigError, which says what failed."""
    failure: Exception | None = None
    if config.download:
        try:
            return _snapshot(config, patterns, local=False)
        except Exception as error:  # the border to a library, and to all that is between it and the hub
            failure = error
    for cache in _caches():
        try:
            return _snapshot(config, patterns, local=True, cache=cache)
        except (OSError, ValueError) as error:
            failure = failure or error
    raise ConfigError(f"{key}.source: {config.source}: {_why(failure, config)}") from failure


def _snapshot(config: SourceConfig, patterns: list[str], *, local: bool, cache: Path | None = None) -> Path:
    found = snapshot_download(
        config.source, revision=config.revision, allow_patterns=patterns, local_files_only=local, cache_dir=cache
    )
    return Path(found)


def _caches() -> Iterator[Path | None]:
    """Where models are looked for: the mesh's own cache, which is the library's, and the user's."""
    yield None
    if services.common.environment.PERSONAL is not None:
        yield services.common.environment.PERSONAL / "hub"


def _why(failure: Exception | None, config: SourceConfig) -> str:
    chain = list(_chain(failure))
    if any(isinstance(error, HFValidationError) for error in chain):
        return f"{_NOWHERE}, nor a name that the hub could have: it is owner/name"
    if not config.download:
        return f"{_NOWHERE} ({constants.HF_HUB_CACHE}); `download = true` would fetch it"
    return next((said for error in chain if (said := _said(error, config))), None) or _otherwise(chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    for _ in range(_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _said(error: BaseException, config: SourceConfig) -> str | None:
    """The meaning of a kind of error, with the remedy; None for a kind that only wraps another."""
    match error:
        case OfflineModeIsEnabled():
            return f"{_NOWHERE}; the hub is not reached, because HF_HUB_OFFLINE is set"
        case GatedRepoError():
            return "the hub gives it only to those who accepted its terms: accept them there, and set HF_TOKEN"
        case RepositoryNotFoundError():
            return "the hub has no such model, or shows it to nobody without a token: check the name, or set HF_TOKEN"
        case RevisionNotFoundError():
            return f"the hub has no revision {config.revision or 'main'} of it"
        case LocalEntryNotFoundError():
            return None
        case HfHubHTTPError() if error.response.status_code == _UNAUTHORIZED:
            return "the hub does not accept the token: check HF_TOKEN"
        case HfHubHTTPError():
            return f"the hub ({_host()}) answers with HTTP status {error.response.status_code}"
        case ImportError():
            return f"a package is missing: {_line(error)}"
        case OSError() if error.errno and error.filename:
            return (
                f"the cache can't be written: {error.filename}: {error.strerror}; MESHGATE_HOME, or HF_HOME for models "
                "alone, names another place"
            )
    return None


def _otherwise(chain: list[BaseException]) -> str:
    """The connection failed: the last cause that says something, as the system has it."""
    system = [error.strerror for error in chain if isinstance(error, OSError) and error.strerror]
    reason = system[-1] if system else next((line for error in chain if (line := _line(error))), "no reason is known")
    proxy = next((name for name in _PROXIES if os.environ.get(name)), None)
    through = f" by the proxy of {proxy}" if proxy else ""
    return f"{_NOWHERE}; the hub ({_host()}) was not reached{through}: {reason}"


def _host() -> str:
    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def _line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return "".join(letter for letter in first if letter.isprintable())[:_SAID]
