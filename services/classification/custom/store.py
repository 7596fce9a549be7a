"""Classifiers on disk: a folder for each tenant, in it one for each classifier, with a manifest and a file a version.

    <sha256 of the tenant>/<name>/manifest.json    which versions there are, their checksums, which is served
                                  3.safetensors    the numbers of version 3

Every file is written beside its place, synced, and put there by a rename: who reads sees the old or the new one, and so
does a restart after a crash. The manifest comes last, so what it names is there. Writers take a lock on the tenant's
folder, which several processes may share; readers take none. All of it blocks: call it on a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from meshgate.errors import Internal, LimitExceeded, NotFound, Unavailable
from meshgate.runtime.files import file_stamp
from meshgate.runtime.files.file_stamp import FileStamp
from services.classification.custom.heads import Head
from services.classification.custom.storage import Manifest, Version
from services.common.checks import no_classifier

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
"""A classifier's name: never a path, never hidden, the same on file systems that ignore case."""
MANIFEST: Final = "manifest.json"
_LOCK: Final = ".lock"


class Store:
    """All tenants' classifiers under one directory, which is made when it is first written to."""

    def __init__(self, directory: Path, *, classifiers: int, versions: int) -> None:
        """`classifiers` is the most of a tenant, `versions` how many are kept of each."""
        self._directory = directory
        self._classifiers = classifiers
        self._versions = versions

    def stamp(self, tenant: str, name: str) -> FileStamp | None:
        """Tells whether a classifier changed; None where there is none. One system call."""
        if not NAME.fullmatch(name):
            return None
        try:
            return file_stamp.of(self._of(tenant) / name / MANIFEST)
        except OSError:
            return None

    def names(self, tenant: str) -> list[str]:
        """A tenant's classifiers, sorted."""
        return sorted(path.parent.name for path in self._of(tenant).glob(f"*/{MANIFEST}"))

    def manifest(self, tenant: str, name: str) -> Manifest:
        """Raises NotFound (MODEL_NOT_FOUND), or Internal (CLASSIFIER_DAMAGED)."""
        _check(name)
        try:
            found = Manifest.model_validate_json((self._of(tenant) / name / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise no_classifier(name) from None
        except (OSError, ValidationError) as error:
            raise _damaged() from error
        if (found.tenant, found.name) != (tenant, name):
            raise _damaged()
        return found

    def head(self, manifest: Manifest) -> Head:
        """The version that is served. Raises Internal (CLASSIFIER_DAMAGED)."""
        version = manifest.version(manifest.current)
        if version is None:
            raise _damaged()
        try:
            content = (self._of(manifest.tenant) / manifest.name / _file(version.version)).read_bytes()
            if hashlib.sha256(content).hexdigest() != version.sha256:
                raise _damaged()
            return _head(content, version.labels)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise _damaged() from error

    def room(self, tenant: str, name: str) -> None:
        """Raises LimitExceeded (TOO_MANY_CLASSIFIERS) where a tenant may have no further one of that name."""
        others = [each for each in self.names(tenant) if each != name]
        if len(others) >= self._classifiers:
            raise LimitExceeded(
                f"a tenant may have {self._classifiers} classifiers",
                reason="TOO_MANY_CLASSIFIERS",
                subject="tenant",
                limit="classifiers",
            )

    def publish(self, tenant: str, name: str, head: Head, *, trained: float, accuracy: float, inputs: int) -> Manifest:
        """Adds a version, which is served from then on. Raises LimitExceeded and Unavailable."""
        _check(name)
        content = save({"weight": head.weight, "bias": head.bias, "probe": head.probe})
        with _Lock(self._of(tenant)):
            self.room(tenant, name)
            old = self._known(tenant, name)
            version = Version(
                version=old.next if old else 1,
                sha256=hashlib.sha256(content).hexdigest(),
                trained=trained,
                accuracy=accuracy,
                inputs=inputs,
                labels=head.labels,
            )
            new = (
                old.added(version, self._versions)
                if old
                else Manifest(tenant=tenant, name=name, current=1, versions=(version,))
            )
            folder = self._of(tenant) / name
            folder.mkdir(exist_ok=True)
            _put(folder / _file(version.version), content)
            self._change(new)
        return new

    def serve(self, tenant: str, name: str, version: int | None) -> Manifest:
        """Serves another version from now on; None is the one before. Raises NotFound and Unavailable."""
        with _Lock(self._of(self._there(tenant, name))):
            old = self.manifest(tenant, name)
            numbers = [each.version for each in old.versions]
            wanted = max((each for each in numbers if each < old.current), default=0) if version is None else version
            if wanted not in numbers:
                raise _no_version(old, version)
            new = old.model_copy(update={"current": wanted})
            self._change(new)
        return new

    def delete(self, tenant: str, name: str) -> None:
        """Forgets a classifier, one that is damaged too. Raises NotFound and Unavailable."""
        with _Lock(self._of(self._there(tenant, name))):
            folder = self._of(tenant) / name
            (folder / MANIFEST).unlink(missing_ok=True)
            _sync(folder)
            shutil.rmtree(folder, ignore_errors=True)

    def _there(self, tenant: str, name: str) -> str:
        """The tenant, if it has such a classifier, so that asking makes no folder."""
        if self.stamp(tenant, name) is None:
            raise no_classifier(name)
        return tenant

    def _known(self, tenant: str, name: str) -> Manifest | None:
        return None if self.stamp(tenant, name) is None else self.manifest(tenant, name)

    def _change(self, manifest: Manifest) -> None:
        """Puts the manifest in place, and removes what it no longer names."""
        folder = self._of(manifest.tenant) / manifest.name
        _put(folder / MANIFEST, manifest.model_dump_json(indent=2).encode())
        kept = {MANIFEST, *(_file(each.version) for each in manifest.versions)}
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _of(self, tenant: str) -> Path:
        """A tenant may have any name; a folder may not."""
        return self._directory / hashlib.sha256(tenant.encode()).hexdigest()


class _Lock:
    """Held by one writer of a tenant's folder at a time. Who finds it held is told to come again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._held = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._held)
            raise Unavailable(
                "the tenant's classifiers are being changed", reason="OVERLOADED", retry_after=1.0
            ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._held)


def _head(content: bytes, labels: tuple[str, ...]) -> Head:
    """Raises KeyError or ValueError for numbers that make no head."""
    found = load(content)
    weight, bias, probe = (np.asarray(found[name], dtype=np.float32) for name in ("weight", "bias", "probe"))
    if bias.shape != (len(labels),) or weight.shape != (len(labels), *probe.shape) or probe.ndim != 1:
        raise ValueError("the shapes don't belong together")
    return Head(labels, weight, bias, probe)


def _file(version: int) -> str:
    return f"{version}.safetensors"


def _put(path: Path, content: bytes) -> None:
    """Puts a whole file in its place, so that it outlasts a loss of power. The tenant's lock is held."""
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check(name: str) -> None:
    """A name that can't be one names nothing."""
    if not NAME.fullmatch(name):
        raise no_classifier(name)


def _no_version(manifest: Manifest, version: int | None) -> NotFound:
    kept = ", ".join(str(each.version) for each in manifest.versions)
    if version is None:
        why = f"the classifier has no version before {manifest.current}, which is served; kept: {kept}"
    else:
        why = f"the classifier has no version {version}; kept: {kept}"
    return NotFound(why, reason="VERSION_NOT_FOUND")


def _damaged() -> Internal:
    return Internal("the classifier's files are damaged: train it again, or roll it back", reason="CLASSIFIER_DAMAGED")
