"""Adapters on disk: a folder for each tenant, in it one for each adapter, as PEFT's save_pretrained writes it.

    <tenant>/<name>/adapter_config.json          how it was made
                    adapter_model.safetensors    its numbers

Each step of the way is opened by itself and no link is followed, so nothing outside can be reached, not even by a
folder that becomes a link meanwhile. Files are read, not mapped: one that is cut while it is mapped ends the process.
All of it blocks: call it on a thread.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from meshgate.errors import Internal, Unavailable
from services.generation.adapters.adapter_errors import absent, unusable

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""An adapter's name: never a path, never hidden."""
_TENANT: Final = re.compile(r"[A-Za-z0-9][!-~]{0,127}", re.ASCII)
SHARED: Final = ""
"""The folder of adapters that are for all."""
LISTED: Final = 500
"""The most names that a tenant is told."""
_LOOKED: Final = 10_000
"""The most entries of a folder that are looked at for them, some milliseconds' worth."""
CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PICKLE: Final = "adapter_model.bin"
_CONFIG_BYTES: Final = 1_048_576
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not make us wait
_ABSENT: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))

Stamp = tuple[int, ...]
"""Changes whenever one of an adapter's files does."""


class FoundAdapter(NamedTuple):
    """An adapter as it is on disk now."""

    folder: str
    name: str
    stamp: Stamp


class AdapterNames(NamedTuple):
    """What a tenant may name."""

    names: list[str]
    """In their order."""
    more: bool
    """Whether there are, or may be, others."""


class AdapterFiles(NamedTuple):
    """What is in it."""

    config: bytes
    weights: bytes


class AdapterStore:
    """All tenants' adapters under one directory, and those for all under another."""

    def __init__(self, directory: Path, shared: Path | None, file_bytes: int) -> None:
        """`file_bytes` is the most that an adapter's numbers take on disk."""
        self._directory = directory
        self._shared = shared
        self._most = {CONFIG: _CONFIG_BYTES, WEIGHTS: file_bytes}

    def look(self, tenant: str, name: str) -> FoundAdapter:
        """A tenant's own adapter, else one for all. Raises NotFound (ADAPTER_NOT_FOUND), InvalidArgument
        (ADAPTER_UNUSABLE) for one that lacks a file or is too large, and Internal.
        """
        if NAME.fullmatch(name):
            for folder in (folder_of(tenant), SHARED):
                with self._opened(folder, name) as handle:
                    if handle is not None:
                        return FoundAdapter(folder or SHARED, name, self._stamp(handle))
        raise absent()

    def names(self, tenant: str) -> AdapterNames:
        """A tenant's own adapters and those for all, its own first where they are too many. What is in a folder is not
        looked at: whether an adapter can be used is said when it is named. Raises Internal.
        """
        own, more = self._names(folder_of(tenant))
        shared, others = self._names(SHARED)
        found = sorted(own) + sorted(shared - own)
        return AdapterNames(sorted(found[:LISTED]), more or others or len(found) > LISTED)

    def _names(self, folder: str | None) -> tuple[set[str], bool]:
        """The names in a folder, and whether there may be others."""
        with self._opened(folder, None) as handle:
            if handle is None:
                return set(), False
            try:
                return _listed(handle)
            except OSError as error:
                raise _unreadable(error) from None

    def read(self, found: FoundAdapter) -> AdapterFiles:
        """Raises what `look` raises, and Unavailable where it is no longer what was found."""
        with self._opened(found.folder, found.name) as handle:
            if handle is None:
                raise absent()
            config, weights = (self._content(handle, name) for name in (CONFIG, WEIGHTS))
            if self._stamp(handle) != found.stamp:
                raise Unavailable("the adapter is being changed", reason="ADAPTER_CHANGING", retry_after=1.0)
        return AdapterFiles(config, weights)

    @contextmanager
    def _opened(self, folder: str | None, name: str | None) -> Iterator[int | None]:
        """A handle on an adapter's folder, or that of all of a tenant; None where there is none."""
        handle = None if folder is None else self._open(folder, name)
        try:
            yield handle
        finally:
            if handle is not None:
                os.close(handle)

    def _open(self, folder: str, name: str | None) -> int | None:
        root = self._directory if folder else self._shared
        if root is None:
            return None
        try:
            handle = os.open(root, _FOLDER)
            for step in (folder, name):
                handle = _into(handle, step) if step else handle
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise _unreadable(error) from None
        return handle

    def _stamp(self, handle: int) -> Stamp:
        stamp: list[int] = []
        for name in (CONFIG, WEIGHTS):
            with self._file(handle, name) as (_, facts):
                stamp += (facts.st_ino, facts.st_size, facts.st_ctime_ns)
        return tuple(stamp)

    def _content(self, handle: int, name: str) -> bytes:
        with self._file(handle, name) as (file, _), os.fdopen(file, "rb", closefd=False) as stream:
            content = stream.read(self._most[name] + 1)
        if len(content) > self._most[name]:  # it grew
            raise _too_large(name)
        return content

    @contextmanager
    def _file(self, handle: int, name: str) -> Iterator[tuple[int, os.stat_result]]:
        """A file of an adapter that is no larger than it may be."""
        try:
            file = os.open(name, _FILE, dir_fd=handle)
        except OSError as error:
            if error.errno in _ABSENT:
                raise unusable(_why_absent(handle, name, error)) from None
            raise _unreadable(error) from None
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode):
                raise unusable(f"{name} is not a file")
            if facts.st_size > self._most[name]:
                raise _too_large(name)
            yield file, facts
        finally:
            os.close(file)


def folder_of(tenant: str) -> str | None:
    """A tenant may have a name that no folder can: what is not a letter, a digit or one of `._-~` is percent-encoded.
    None for who is nobody.
    """
    return quote(tenant, safe="") if _TENANT.fullmatch(tenant) else None


def _listed(handle: int) -> tuple[set[str], bool]:
    with os.scandir(handle) as entries:
        looked = list(islice(entries, _LOOKED + 1))
        folders = (each.name for each in looked[:_LOOKED] if each.is_dir(follow_symlinks=False))
        return {name for name in folders if NAME.fullmatch(name)}, len(looked) > _LOOKED


def _into(parent: int, name: str) -> int:
    """Opens a folder in a folder, which is closed."""
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    finally:
        os.close(parent)


def _why_absent(handle: int, name: str, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"{name} is a link"
    if name == WEIGHTS:
        with suppress(OSError):
            os.stat(_PICKLE, dir_fd=handle, follow_symlinks=False)
            return "its numbers are a pickle, which can hold a program: save it as safetensors"
    return f"{name} is missing"


def _too_large(name: str) -> Exception:
    return unusable(f"{name} is too large")


def _unreadable(error: OSError) -> Internal:
    return Internal(f"adapters can't be read: {errno.errorcode.get(error.errno or 0, 'unknown')}")
