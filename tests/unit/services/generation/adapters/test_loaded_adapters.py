"""Adapters in memory: read once, given up for others, read again, and nobody waits for another's disk."""

from __future__ import annotations

import asyncio
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from meshgate.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from services.generation.adapters.adapter_store import AdapterFiles, AdapterStore
from services.generation.adapters.loaded_adapters import LoadedAdapters
from services.generation.adapters.lora import LoRA, LoraLoader
from services.generation.adapters.lora_layers import LayerSize
from tests.tinymodels.lora import LAYERS, SIZES, build_lora, write_config

ONE = 2 * 4 * 4 * (64 + 64 + 64 + 32 + 128 + 64)
"""Bytes of one of the tests' adapters in float32."""


class Slow(LoraLoader):
    """Waits where it is told to."""

    def __init__(self) -> None:
        sizes = {layer: LayerSize(*SIZES[".".join(layer.split(".")[-2:])]) for layer in LAYERS}
        super().__init__(sizes, torch.float32, torch.device("cpu"), 8)
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Semaphore(0)
        self.read = 0

    def fit(self, files: AdapterFiles) -> LoRA:
        self.read += 1
        self.begun.release()
        if b"slow" in files.config:
            assert self.go_on.wait(20)
        return super().fit(files)


async def _freed(adapter: weakref.ref[LoRA]) -> None:
    """The thread that loaded it may hold it a moment longer than whoever asked for it."""
    async with asyncio.timeout(20):
        while adapter() is not None:  # noqa: ASYNC110 - that nobody holds it any more is no event
            await asyncio.sleep(0.01)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for place, name in enumerate(("acme/a", "acme/b", "acme/c", "other/a")):
        build_lora(tmp_path / "own" / name, place)
    for name in ("ours", "everyones"):
        build_lora(tmp_path / "shared" / name, 9)
    return tmp_path


@pytest.fixture
def fitting() -> Slow:
    return Slow()


class Shelves:
    """Makes what is tested, and closes it."""

    def __init__(self, root: Path, fitting: Slow) -> None:
        self._shelf = AdapterStore(root / "own", root / "shared", 1_000_000)
        self._fitting = fitting
        self._made: list[LoadedAdapters] = []

    def __call__(self, memory: int = 100 * ONE, per_tenant: int = 10) -> LoadedAdapters:
        self._made.append(LoadedAdapters(self._shelf, self._fitting, memory=memory, per_tenant=per_tenant))
        return self._made[-1]

    def close(self) -> None:
        self._fitting.go_on.set()
        for each in self._made:
            each.close()


@pytest.fixture
async def shelves(root: Path, fitting: Slow) -> AsyncIterator[Shelves]:
    made = Shelves(root, fitting)
    yield made
    made.close()


async def test_an_adapter_is_read_once(shelves: Shelves, fitting: Slow) -> None:
    adapters = shelves()
    first, again = [await adapters.find("acme", "a", None) for _ in range(2)]
    assert (first is again, fitting.read, first.size) == (True, 1, ONE)
    assert await adapters.find("other", "a", None) is not first
    assert (await adapters.find("acme", "ours", None)) is (await adapters.find("other", "ours", None))


async def test_those_who_ask_while_it_is_read_wait_for_the_same(shelves: Shelves, fitting: Slow) -> None:
    adapters = shelves()
    found = await asyncio.gather(*(adapters.find("acme", "a", None) for _ in range(5)))
    assert (len({id(each) for each in found}), fitting.read) == (1, 1)


async def test_the_oldest_make_room_and_are_read_again(shelves: Shelves) -> None:
    adapters = shelves(memory=2 * ONE)
    first = weakref.ref(await adapters.find("acme", "a", None))
    second = weakref.ref(await adapters.find("acme", "b", None))
    assert await adapters.find("acme", "a", None) is first()  # b is the older one now
    await adapters.find("acme", "c", None)
    await _freed(second)
    assert first() is not None
    assert await adapters.find("acme", "b", None)
    await _freed(first)


async def test_what_is_in_use_takes_its_room_until_it_no_longer_is(shelves: Shelves, fitting: Slow) -> None:
    adapters = shelves(memory=2 * ONE)
    a, b = [await adapters.find("acme", name, None) for name in "ab"]
    with pytest.raises(Unavailable) as refused:
        await adapters.find("acme", "c", None)
    assert (refused.value.reason, fitting.read) == ("OVERLOADED", 3)
    assert await adapters.find("acme", "a", None) is a, "it was given up and read again beside itself"
    del b
    assert await adapters.find("acme", "c", None)


async def test_a_tenant_has_so_many_and_gives_up_its_own(shelves: Shelves) -> None:
    adapters = shelves(per_tenant=1)
    others = weakref.ref(await adapters.find("other", "a", None))
    shared = [await adapters.find("other", name, None) for name in ("ours", "everyones")]
    a = weakref.ref(await adapters.find("acme", "a", None))
    b = await adapters.find("acme", "b", None)
    await _freed(a)
    assert (others() is not None, len(shared)) == (True, 2)
    with pytest.raises(Unavailable):
        await adapters.find("acme", "a", None)
    del b
    assert await adapters.find("acme", "a", None)


async def test_one_that_is_larger_than_all_may_be_is_refused(shelves: Shelves) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await shelves(memory=ONE - 1).find("acme", "a", None)
    assert refused.value.reason == "ADAPTER_UNUSABLE"


async def test_a_replaced_one_is_read_again(shelves: Shelves, root: Path) -> None:
    adapters = shelves()
    old = weakref.ref(await adapters.find("acme", "a", None))
    write_config(root / "own" / "acme" / "a", lora_alpha=80)
    new = await adapters.find("acme", "a", None)
    await _freed(old)
    assert torch.equal(new.pairs[LAYERS[0]].b, (await _plain(root)).pairs[LAYERS[0]].b * 10)


async def _plain(root: Path) -> LoRA:
    write_config(root / "own" / "acme" / "a")
    shelf = AdapterStore(root / "own", None, 1_000_000)
    return Slow().fit(shelf.read(shelf.look("acme", "a")))


@pytest.mark.parametrize("gone", ["own/acme/a", "own/acme"])
async def test_a_deleted_one_is_gone(shelves: Shelves, root: Path, gone: str) -> None:
    adapters = shelves()
    old = weakref.ref(await adapters.find("acme", "a", None))
    shutil.rmtree(root / gone)
    with pytest.raises(NotFound):
        await adapters.find("acme", "a", None)
    await _freed(old)


async def test_a_slow_one_keeps_no_other_tenant_waiting(shelves: Shelves, root: Path, fitting: Slow) -> None:
    adapters = shelves()
    for name in "ab":
        write_config(root / "own" / "acme" / name, revision="slow")
    fitting.go_on.clear()
    slow = [asyncio.ensure_future(adapters.find("acme", name, None)) for name in "ab"]
    await asyncio.to_thread(fitting.begun.acquire, timeout=20)
    assert await adapters.find("other", "a", 20.0), "both threads were the first tenant's"
    assert (fitting.read, [task.done() for task in slow]) == (2, [False, False])
    fitting.go_on.set()
    assert all(await asyncio.gather(*slow))


async def test_who_can_wait_no_longer_is_told_and_the_next_finds_it(
    shelves: Shelves, root: Path, fitting: Slow
) -> None:
    adapters = shelves()
    write_config(root / "own" / "acme" / "a", revision="slow")
    fitting.go_on.clear()
    impatient = asyncio.ensure_future(adapters.find("acme", "a", 5.0))
    patient = asyncio.ensure_future(adapters.find("acme", "a", None))
    await asyncio.to_thread(fitting.begun.acquire, timeout=20)
    with pytest.raises(DeadlineExceeded):
        await adapters.find("acme", "a", 0.0)
    impatient.cancel()
    fitting.go_on.set()
    assert await patient
    assert fitting.read == 1


async def test_a_bad_one_is_told_to_all_who_wait_and_tried_again(shelves: Shelves, root: Path, fitting: Slow) -> None:
    adapters = shelves()
    write_config(root / "own" / "acme" / "a", use_dora=True)
    told = await asyncio.gather(*(adapters.find("acme", "a", None) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, InvalidArgument) for each in told)
    before = fitting.read  # who looked only after the first was told read it once more
    write_config(root / "own" / "acme" / "a")
    assert await adapters.find("acme", "a", None)
    assert fitting.read == before + 1


async def test_once_closed_it_says_that_the_server_stops(shelves: Shelves) -> None:
    adapters = shelves()
    adapters.close()
    with pytest.raises(Unavailable) as refused:
        await adapters.find("acme", "a", None)
    assert refused.value.reason == "DRAINING"
