"""EmbeddingService before its model: whose a call is, how long it has, how much of a stream is in hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from meshgate.errors import DeadlineExceeded, InvalidArgument, Unavailable
from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.runtime.metrics_server import Gauges
from meshgate.v1 import embedding_pb2 as pb
from services.batching import Fault, metrics
from services.common import error_kinds
from services.common.ordered_stream import IN_HAND
from services.embedding import app as apps
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, EngineConfig, ModelConfig
from services.embedding.model_proxy import Item, ModelProxy, Vector
from services.embedding.servicer import EmbeddingServicer, Models, Served
from services.model_process import Hosted
from services.models.model_table import ModelSlot, ModelTable
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert


class Gated(ModelProxy):
    """Runs when it is let."""

    def __init__(self, hosted: Hosted) -> None:
        super().__init__(hosted)
        self.go_on = threading.Event()
        self.go_on.set()
        self.sizes: list[int] = []

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        self.sizes.append(len(batch))
        assert self.go_on.wait(10)
        return super().run(batch)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
async def served(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(apps, "ModelProxy", Gated)
    nowhere = tls.TlsConfig(certificate=directory, key=directory, ca=directory)
    model = ModelConfig(source=str(directory), dtype="float32", device="cpu")
    engine = EngineConfig(queue_tokens=400, queue_calls=64, max_batch=64)
    made = App(EmbeddingConfig(server=ServerConfig(tls=nowhere), model=model, engine=engine))
    await made.start()
    yield made._slot.get().default
    gate(made._slot.get().default).set()
    await made.stop(5)


def gate(served: Served) -> threading.Event:
    assert isinstance(served.model, Gated)
    return served.model.go_on


def embed(served: Served, text: str, *, tenant: str = "acme", remaining: float | None = None) -> asyncio.Task[Any]:
    context: Any = FakeContext(("x-meshgate-tenant", tenant), remaining=remaining)
    return asyncio.create_task(EmbeddingServicer(place(served)).Embed(pb.EmbedRequest(inputs=[text]), context))


def place(served: Served) -> Models:
    made: Models = ModelSlot()
    made.served = ModelTable([served])
    return made


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.to_thread(lambda: None)


async def test_a_call_is_held_on_its_tenants_account_until_it_has_its_answer(served: Served) -> None:
    gate(served).clear()
    admission = served.batcher.admission
    calls = [embed(served, "abc"), embed(served, "abc", tenant="other")]
    await until(lambda: admission.tokens.tenants == 2)
    assert (admission.tokens.of("acme"), admission.calls.of("acme"), admission.calls.held) == (5, 1, 2)
    gate(served).set()
    await asyncio.gather(*calls)
    assert (admission.tokens.held, admission.calls.held) == (0, 0)


async def test_a_flood_is_refused_and_another_tenant_is_not(served: Served) -> None:
    gate(served).clear()
    flood = [embed(served, "x " * 20) for _ in range(30)]
    await until(lambda: sum(task.done() for task in flood) >= 10)
    quiet = embed(served, "hello", tenant="quiet")
    await until(lambda: served.batcher.admission.tokens.of("quiet"))
    gate(served).set()
    assert (await quiet).usage.input_tokens == 7
    ended = await asyncio.gather(*flood, return_exceptions=True)
    refused = [each for each in ended if isinstance(each, Unavailable)]
    assert refused
    assert all(each.reason == "OVERLOADED" and each.retry_after for each in refused)
    assert served.batcher.counts.refused == len(refused)


async def test_a_call_that_is_bound_to_be_late_is_refused(served: Served) -> None:
    await embed(served, "hello")
    with pytest.raises(DeadlineExceeded):
        await embed(served, "hello", remaining=1e-6)
    await embed(served, "hello", remaining=30.0)


async def test_a_refused_text_leaves_its_place(served: Served) -> None:
    with pytest.raises(InvalidArgument):
        await embed(served, "x " * 200)
    assert served.batcher.admission.calls.held == 0


async def test_a_slow_reader_holds_a_bounded_number_of_messages(served: Served) -> None:
    read = 0

    async def requests() -> AsyncIterator[pb.EmbedStreamRequest]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield pb.EmbedStreamRequest(request=pb.EmbedRequest(inputs=[f"text {number}"]))

    context: Any = FakeContext()
    replies: Any = EmbeddingServicer(place(served)).EmbedStream(requests(), context)
    await anext(replies)
    admission = served.batcher.admission
    await until(lambda: read >= IN_HAND and not admission.calls.held)  # all that was read is done, and waits
    for _ in range(100):
        await asyncio.sleep(0)
    assert read <= IN_HAND + 1
    assert len([reply async for reply in replies]) == 999
    assert read == 1000


async def test_a_stream_that_is_left_gives_everything_back(served: Served) -> None:
    gate(served).clear()

    async def requests() -> AsyncIterator[pb.EmbedStreamRequest]:
        while True:
            yield pb.EmbedStreamRequest(request=pb.EmbedRequest(inputs=["text"]))

    context: Any = FakeContext(("x-meshgate-tenant", "acme"))
    admission = served.batcher.admission

    async def read() -> None:
        async for _ in EmbeddingServicer(place(served)).EmbedStream(requests(), context):
            pytest.fail("the model was not let")

    reading = asyncio.create_task(read())
    await until(lambda: admission.calls.of("acme") == IN_HAND)
    reading.cancel()
    await asyncio.wait([reading])
    await until(lambda: admission.calls.held == 0)
    assert admission.tokens.held == 0
    gate(served).set()


async def test_what_happened_is_told(served: Served) -> None:
    readings = Gauges()
    metrics.export(readings, served.batcher)
    await embed(served, "hello")
    told = {sample.name: sample.value for family in readings.collect() for sample in family.samples}
    assert (told["meshgate_batcher_inputs_total"], told["meshgate_batcher_tokens_total"]) == (1, 7)
    assert told["meshgate_batcher_queued_tokens"] == 0


def test_a_cpu_without_memory_is_told_from_a_bad_input() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 56)
    assert error_kinds.classify(caught.value) is Fault.MEMORY
    assert error_kinds.classify(torch.OutOfMemoryError("CUDA out of memory")) is Fault.MEMORY
    assert error_kinds.classify(torch.AcceleratorError("device-side assert")) is Fault.MODEL
    assert error_kinds.classify(RuntimeError("mat1 and mat2 shapes")) is Fault.INPUT
    assert error_kinds.classify(SystemExit()) is Fault.MODEL
