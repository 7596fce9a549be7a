"""The tenants' classifiers as they are served: each tenant sees its own and no other's.

What is on disk decides: a look at it comes before each use, so that processes that share a directory agree, and a
restart forgets nothing. The numbers themselves are read once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, NamedTuple

from meshgate.errors import MeshError, NotFound
from meshgate.runtime.files.file_stamp import FileStamp
from services.classification.custom.heads import Head, Matrix
from services.classification.custom.storage import Manifest
from services.classification.custom.store import Store

_KEPT: Final = 256
"""Heads in memory."""


class _Read(NamedTuple):
    stamp: FileStamp
    head: Head


class TenantClassifiers:
    """For one event loop."""

    def __init__(self, store: Store, probe: Matrix) -> None:
        """`probe` is the vector that tells the encoder from others."""
        self.store = store
        self.probe = probe
        self._heads: OrderedDict[tuple[str, str], _Read] = OrderedDict()

    async def find(self, tenant: str, name: str) -> Head | None:
        """A tenant's classifier, None where it has none of that name.

        Raises NotFound (CLASSIFIER_STALE) for one that was made for another encoder, Internal (CLASSIFIER_DAMAGED).
        """
        stamp = self.store.stamp(tenant, name) if tenant else None
        if stamp is None:
            return None
        read = self._heads.get((tenant, name))
        if read is None or read.stamp != stamp:
            read = self._keep(tenant, name, _Read(stamp, await asyncio.to_thread(self._load, tenant, name)))
        self._heads.move_to_end((tenant, name))
        return read.head

    async def all(self, tenant: str) -> list[Manifest]:
        """A tenant's classifiers, sorted, but for those that can't be read, which nobody can use."""
        return await asyncio.to_thread(self._all, tenant)

    async def serve(self, tenant: str, name: str, version: int | None) -> Manifest:
        """Serves another version; None is the one before. Raises NotFound."""
        return await asyncio.to_thread(self.store.serve, tenant, name, version)

    async def delete(self, tenant: str, name: str) -> None:
        """Forgets a classifier. Raises NotFound."""
        await asyncio.to_thread(self.store.delete, tenant, name)
        self._heads.pop((tenant, name), None)

    def _load(self, tenant: str, name: str) -> Head:
        head = self.store.head(self.store.manifest(tenant, name))
        if not head.fits(self.probe):
            raise NotFound("the classifier was made for another encoder: train it again", reason="CLASSIFIER_STALE")
        return head

    def _keep(self, tenant: str, name: str, read: _Read) -> _Read:
        self._heads[tenant, name] = read
        while len(self._heads) > _KEPT:
            self._heads.popitem(last=False)
        return read

    def _all(self, tenant: str) -> list[Manifest]:
        found = []
        for name in self.store.names(tenant):
            try:
                found.append(self.store.manifest(tenant, name))
            except MeshError:
                continue
        return found
