"""Models in a process of their own: what they say, how they fail, and that they never outlive who asked for them."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from meshgate.runtime.config import ConfigError
from services.batching import Fault
from services.embedding.config import ModelConfig
from services.embedding.model_proxy import Item, ModelProxy
from services.encoders.pooling import Pooling
from services.model_process import Host, HostError, InprocessHost, SubprocessHost
from services.text.tokens import Cut
from tests.tinymodels.bert import build_tiny_bert

MODELS = "tests.support.fixtures.hosted_models"
SECONDS = 30.0


class Life:
    """Whether a host's process died by itself."""

    def __init__(self) -> None:
        self.over = threading.Event()


@pytest.fixture
def life() -> Life:
    return Life()


@contextmanager
def started(life: Life, batches: int = 1) -> Iterator[SubprocessHost]:
    made = SubprocessHost("test", threads=1, batches=batches)
    made.start(life.over.set)
    yield made
    made.stop()


@pytest.fixture
def host(life: Life) -> Iterator[SubprocessHost]:
    with started(life) as made:
        yield made


def test_a_model_answers_with_its_facts_and_with_what_it_makes_of_a_batch(host: SubprocessHost) -> None:
    one, two = host.load(f"{MODELS}:load", "one"), host.load(f"{MODELS}:load", "two")
    assert (one.facts, two.facts) == ({"word": "one"}, {"word": "two"})
    assert one.run([1, 2]) == ("one", [1, 2])
    assert two.run({"a": b"bytes"}) == ("two", {"a": b"bytes"})
    assert one.run("pid") != os.getpid()
    assert one.run("threads") == 1


@pytest.mark.parametrize("kind", [InprocessHost, SubprocessHost], ids=["here", "apart"])
def test_what_can_t_be_loaded_says_why_and_the_others_stay(host: SubprocessHost, kind: type[Host]) -> None:
    where: Host = host if kind is SubprocessHost else InprocessHost()
    kept = where.load(f"{MODELS}:load", "kept")
    with pytest.raises(ConfigError, match=r"^model\.source: x: no such directory$"):
        where.load(f"{MODELS}:refused", "x")
    assert kept.run(1) == ("kept", 1)


def test_a_fault_is_told_and_its_text_stays_where_it_was(capfd: pytest.CaptureFixture[str], life: Life) -> None:
    with started(life) as host:  # within the test, so that what it writes is captured
        model = host.load(f"{MODELS}:load", "canary")
        for batch, fault in (("fail", Fault.INPUT), ("memory", Fault.MEMORY)):
            with pytest.raises(HostError) as error:
                model.run(batch)
            assert host.classify(error.value) is fault
            assert "canary" not in str(error.value)
        with pytest.raises(HostError):
            host.load(f"{MODELS}:failed", "canary")
        assert model.run(1) == ("canary", 1)
    log = capfd.readouterr().err
    assert "builtins.ValueError" in log
    assert "tests.support.fixtures.hosted_models.run" in log
    assert "canary" not in log


def test_its_memory_is_its_own_and_what_it_writes_is_json(capfd: pytest.CaptureFixture[str], life: Life) -> None:
    with started(life) as host:
        model = host.load(f"{MODELS}:load", "last words")
        assert model.run("hardened") == (0, (0, 0))
        model.run("stderr")
    lines: list[str] = []
    for _ in range(200):  # it was killed, and who reads for it writes what there was
        lines += capfd.readouterr().err.splitlines()
        if lines:
            break
        time.sleep(0.05)
    assert [json.loads(line)["message"] for line in lines] == ["last words"]


def test_what_can_t_be_told_fails_and_nobody_waits_for_it(host: SubprocessHost) -> None:
    with pytest.raises(HostError):
        host.load(f"{MODELS}:untold", "one")
    with pytest.raises(HostError):
        host.load("tests.integration.nowhere:load", "one")
    model = host.load(f"{MODELS}:load", "two")
    with pytest.raises(HostError):
        model.run("secret")
    assert model.run(1) == ("two", 1)


def test_what_a_model_did_not_mean_is_its_own_fault_here_and_there(host: SubprocessHost) -> None:
    assert host.classify(ValueError()) is InprocessHost().classify(ValueError()) is Fault.INPUT
    assert host.classify(MemoryError()) is InprocessHost().classify(MemoryError()) is Fault.MEMORY


async def test_a_model_is_freed_with_the_last_reference_to_it(host: SubprocessHost) -> None:
    kept, old = host.load(f"{MODELS}:load", "kept"), host.load(f"{MODELS}:load", "old")
    assert kept.run("alive") == 2
    del old
    async with asyncio.timeout(SECONDS):
        while await asyncio.to_thread(kept.run, "alive") == 2:
            pass
    assert kept.run(1) == ("kept", 1)


async def test_what_is_loaded_runs_while_another_loads(host: SubprocessHost, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    first = host.load(f"{MODELS}:load", "first")
    loading = asyncio.create_task(asyncio.to_thread(host.load, f"{MODELS}:after", "second", pipe))
    writer = await asyncio.to_thread(pipe.open, "wb")  # once it is read from, the second is being loaded
    assert first.run(1) == ("first", 1)
    writer.close()
    assert (await asyncio.wait_for(loading, SECONDS)).run(2) == ("second", 2)


def test_batches_run_there_side_by_side_and_what_is_more_waits(life: Life) -> None:
    with started(life, batches=2) as host, ThreadPoolExecutor(6) as threads:
        model = host.load(f"{MODELS}:load", "one")
        met = [threads.submit(model.run, "meet") for _ in range(6)]  # each needs one other beside it
        assert sorted(each.result(SECONDS) for each in met) == [0, 0, 0, 1, 1, 1]


def test_all_that_run_there_fail_together_when_it_ends(life: Life) -> None:
    with started(life, batches=2) as host, ThreadPoolExecutor(3) as threads:
        model = host.load(f"{MODELS}:load", "one")
        pid = model.run("pid")
        asked = [threads.submit(model.run, "hang") for _ in range(3)]
        os.kill(pid, signal.SIGKILL)
        for each in asked:
            error = each.exception(SECONDS)
            assert isinstance(error, HostError)
            assert error.fault is Fault.MODEL


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_process_that_is_gone_is_told_at_once(host: SubprocessHost, life: Life, how: str) -> None:
    model = host.load(f"{MODELS}:load", "one")
    if how == "ends":
        with pytest.raises(HostError) as error:
            model.run("end")
        assert host.classify(error.value) is Fault.MODEL
    else:
        os.kill(model.run("pid"), signal.SIGKILL)
    assert life.over.wait(SECONDS)
    with pytest.raises(HostError) as again:
        model.run(1)
    assert host.classify(again.value) is Fault.MODEL


def test_stop_ends_a_process_that_hangs_and_is_no_death(host: SubprocessHost, life: Life) -> None:
    model = host.load(f"{MODELS}:load", "one")
    pid = model.run("pid")
    failed = threading.Event()

    def hang() -> None:
        with pytest.raises(HostError):
            model.run("hang")
        failed.set()

    threading.Thread(target=hang).start()
    host.stop()
    assert failed.wait(SECONDS)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not life.over.is_set()


def test_signals_that_end_a_service_are_left_to_it(host: SubprocessHost) -> None:
    model = host.load(f"{MODELS}:load", "one")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(model.run("pid"), number)
    assert model.run(1) == ("one", 1)


PARENT = f"""
import sys
from services.model_process import SubprocessHost
host = SubprocessHost("test")
host.start(print)
model = host.load("{MODELS}:load", "one")
print(model.run("pid"), flush=True)
model.run(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux only")
@pytest.mark.parametrize("busy", ["hang", "input"], ids=["in a batch", "idle"])
def test_it_ends_with_the_process_that_started_it_however_that_ends(busy: str) -> None:
    script = PARENT if busy == "hang" else PARENT.replace("model.run(sys.argv[1])", "input()")
    with subprocess.Popen(
        [sys.executable, "-c", script, busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        assert busy != "hang" or parent.stdout.readline() == "hanging\n"
        parent.kill()
    try:
        assert select.select([child], [], [], SECONDS)[0]
    finally:
        os.close(child)


@pytest.mark.skipif(sys.platform != "linux", reason="from /proc")
def test_what_it_takes_of_the_machine_is_told(host: SubprocessHost) -> None:
    assert host.load(f"{MODELS}:load", "one").run(1) == ("one", 1)
    told = {
        sample.name: sample.value for each in host.collectors for family in each.collect() for sample in family.samples
    }
    assert told["meshgate_models_process_resident_memory_bytes"] > 50e6  # with torch in it
    assert told["meshgate_models_process_cpu_seconds_total"] > 0
    assert not [family for each in SubprocessHost("none").collectors for family in each.collect()]
    assert host.cpu_seconds() >= told["meshgate_models_process_cpu_seconds_total"]
    assert (InprocessHost().collectors, InprocessHost().cpu_seconds(), SubprocessHost("none").cpu_seconds()) == (
        (),
        0.0,
        0.0,
    )


def test_an_embedding_model_says_there_what_it_says_here(host: SubprocessHost, tmp_path: Path) -> None:
    config = ModelConfig(source=str(build_tiny_bert(tmp_path)), dtype="float32", device="cpu")
    vectors = []
    for where in (InprocessHost(), host):
        model = ModelProxy(where.load("services.embedding.model_worker:load", config, "model", 1))
        tokens = model.tokeniser.read(["a text", "and another one", "x"], Cut.REFUSE, "inputs")
        vectors.append(model.run([Item(model, each, Pooling.MEAN) for each in tokens]))
        assert model.facts.dimensions == len(vectors[0][0])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
