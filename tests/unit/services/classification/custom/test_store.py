"""Classifiers on disk: versions, checksums, names that are no paths, and writers that meet."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from meshgate.errors import Internal, LimitExceeded, NotFound, Unavailable
from services.classification.custom.heads import Head
from services.classification.custom.storage import Manifest
from services.classification.custom.store import Store
from services.classification.custom.tenant_classifiers import TenantClassifiers

PROBE = np.array([0.6, 0.8, 0.0], dtype=np.float32)


def head(value: float = 1.0, probe: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = PROBE) -> Head:
    return Head(("a", "b"), np.full((2, 3), value, np.float32), np.zeros(2, np.float32), probe)


def store(path: Path, classifiers: int = 2, versions: int = 2) -> Store:
    return Store(path, classifiers=classifiers, versions=versions)


def publish(made: Store, value: float = 1.0, tenant: str = "acme", name: str = "mood") -> Manifest:
    return made.publish(tenant, name, head(value), trained=0.0, accuracy=0.5, inputs=4)


def weight(made: Store) -> float:
    return float(made.head(made.manifest("acme", "mood")).weight[0, 0])


def files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file() and each.name != ".lock")


def test_a_new_version_is_served_and_the_last_ones_are_kept(tmp_path: Path) -> None:
    made = store(tmp_path)
    for value in (1.0, 2.0, 3.0):
        publish(made, value)
    manifest = store(tmp_path).manifest("acme", "mood")  # as after a restart
    assert ([each.version for each in manifest.versions], manifest.current) == ([2, 3], 3)
    assert weight(made) == 3.0
    assert [path.name for path in files(tmp_path)] == ["2.safetensors", "3.safetensors", "manifest.json"]
    assert made.serve("acme", "mood", None).current == 2
    assert weight(made) == 2.0
    with pytest.raises(NotFound):
        made.serve("acme", "mood", None)
    with pytest.raises(NotFound):
        made.serve("acme", "mood", 1)
    assert made.serve("acme", "mood", 3).current == 3
    assert publish(made, 4.0).current == 4


@pytest.mark.parametrize("name", ["../mood", "/etc", ".", "..", "", "a/b", "Mood", "a" * 64, "mood\n", ".lock", "é"])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    made = store(tmp_path / "classifiers")
    assert made.stamp("acme", name) is None
    for act in (
        lambda: made.manifest("acme", name),
        lambda: made.serve("acme", name, None),
        lambda: made.delete("acme", name),
        lambda: publish(made, name=name),
    ):
        with pytest.raises(NotFound):
            act()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("tenant", ["../acme", "/", ".", "a" * 1000, "acme\0", "äcme"])
def test_a_tenant_of_any_name_stays_under_the_directory(tmp_path: Path, tenant: str) -> None:
    made = store(tmp_path / "classifiers")
    publish(made, tenant=tenant)
    assert made.names(tenant) == ["mood"]
    assert made.names("acme") == []
    assert [path.name for path in tmp_path.iterdir()] == ["classifiers"]


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    made = store(tmp_path)
    manifest = publish(made)
    path = next(tmp_path.rglob("1.safetensors"))
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes((content[place] ^ 1,)) + content[place + 1 :])
        with pytest.raises(Internal) as caught:
            made.head(manifest)
        assert caught.value.reason == "CLASSIFIER_DAMAGED"
    path.write_bytes(content)
    made.head(manifest)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"tenant": "acme"}', b"\xff"])
def test_a_damaged_manifest_is_said_and_can_be_deleted(tmp_path: Path, content: bytes) -> None:
    made = store(tmp_path)
    publish(made)
    next(tmp_path.rglob("manifest.json")).write_bytes(content)
    with pytest.raises(Internal) as caught:
        made.manifest("acme", "mood")
    assert str(tmp_path) not in caught.value.message
    made.delete("acme", "mood")
    assert files(tmp_path) == []
    assert publish(made).current == 1


def test_anothers_manifest_is_not_believed(tmp_path: Path) -> None:
    made = store(tmp_path)
    publish(made)
    publish(made, tenant="other")
    mine, theirs = sorted(tmp_path.rglob("manifest.json"))
    mine.write_bytes(theirs.read_bytes())
    tenants = [tenant for tenant in ("acme", "other") if tenant in mine.read_text()]
    victim = "acme" if tenants == ["other"] else "other"
    with pytest.raises(Internal):
        made.manifest(victim, "mood")


def test_what_a_crash_left_changes_nothing_and_goes(tmp_path: Path) -> None:
    made = store(tmp_path)
    publish(made, 1.0)
    folder = next(tmp_path.rglob("manifest.json")).parent
    for name in (".2.safetensors.new", "2.safetensors", ".manifest.json.new"):
        (folder / name).write_bytes(b"half")
    assert weight(made) == 1.0
    publish(made, 2.0)
    assert weight(made) == 2.0
    assert [path.name for path in files(tmp_path)] == ["1.safetensors", "2.safetensors", "manifest.json"]


def test_a_tenant_has_so_many_and_others_theirs(tmp_path: Path) -> None:
    made = store(tmp_path)
    for name in ("a", "b"):
        publish(made, name=name)
    with pytest.raises(LimitExceeded) as caught:
        publish(made, name="c")
    assert caught.value.reason == "TOO_MANY_CLASSIFIERS"
    publish(made, name="b")  # a new version is no new classifier
    publish(made, name="c", tenant="other")
    made.delete("acme", "a")
    publish(made, name="c")


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    made = store(tmp_path)
    publish(made)
    lock = os.open(next(tmp_path.rglob(".lock")), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(Unavailable):
            publish(made, 2.0)
        publish(made, tenant="other")
    finally:
        os.close(lock)
    assert publish(made, 2.0).current == 2


async def test_another_process_is_followed(tmp_path: Path) -> None:
    mine, theirs = TenantClassifiers(store(tmp_path), PROBE), store(tmp_path)
    assert await mine.find("acme", "mood") is None
    publish(theirs, 1.0)
    first = await mine.find("acme", "mood")
    assert first is not None
    assert first is await mine.find("acme", "mood")  # read once
    publish(theirs, 2.0)
    second = await mine.find("acme", "mood")
    assert second is not None
    assert float(second.weight[0, 0]) == 2.0
    theirs.delete("acme", "mood")
    assert await mine.find("acme", "mood") is None


async def test_a_head_of_another_encoder_is_stale(tmp_path: Path) -> None:
    publish(store(tmp_path))
    turned = np.array([0.8, 0.6, 0.0], dtype=np.float32)
    longer = np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32)
    for probe in (turned, longer):
        with pytest.raises(NotFound) as caught:
            await TenantClassifiers(store(tmp_path), probe).find("acme", "mood")
        assert caught.value.reason == "CLASSIFIER_STALE"
