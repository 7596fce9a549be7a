"""One training, from texts to a classifier that is served, beside everybody else's calls.

Its texts are read as batch traffic of its tenant, so they wait behind interactive calls and take no more than the
tenant's share. The solver has a thread of its own, with its own bound on threads; it is told to stop when nobody waits
for it any more, and its place is free again only when it has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from meshgate.errors import DeadlineExceeded, LimitExceeded, Unavailable
from meshgate.v1 import classification_pb2 as pb
from services.batching import Batcher
from services.classification.config import CustomConfig
from services.classification.custom.examples import Examples
from services.classification.custom.heads import Head, Matrix
from services.classification.custom.tenant_classifiers import TenantClassifiers
from services.classification.custom.training_plan import Stopped
from services.classification.model_proxy import Item, Scores, ZeroShotProxy
from services.common import drain_errors
from services.common.caller import Caller
from services.common.checks import TokenBudget
from services.text.preparing import PreparationQueue, PreparedText
from services.text.tokens import Cut

if TYPE_CHECKING:
    from services.classification.custom.evaluation import Fitted

_CHUNK: Final = 64
"""Texts that are queued together: what a training has in hand, and how often it says how far it is."""
_STOP_SECONDS: Final = 10.0


class _Done(NamedTuple):
    fitted: Fitted
    version: int
    seconds: float
    tokens: int


class Trainer:
    """For one event loop."""

    def __init__(
        self,
        owned: TenantClassifiers,
        encoder: ZeroShotProxy,
        batcher: Batcher[Item, Scores],
        limits: CustomConfig,
        taken: Collection[str],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        preparing: PreparationQueue | None = None,
    ) -> None:
        """`taken` are the names of the service's own models; `now` is in seconds since 1970."""
        self._owned = owned
        self._encoder = encoder
        self._batcher = batcher
        self._limits = limits
        self._taken = taken
        self._preparing = preparing or PreparationQueue()
        self._clock = clock
        self._now = now
        self._tenants: set[str] = set()
        self._held = 0
        self._places = asyncio.Semaphore(limits.at_once)
        self._solving: dict[asyncio.Future[Fitted], threading.Event] = {}
        """What is being solved, with what stops it."""
        self._draining = False
        self._threads = ThreadPoolExecutor(limits.at_once, "training", _prepare, (limits.threads,))

    async def train(
        self, requests: AsyncIterator[pb.TrainClassifierRequest], caller: Caller, purse: TokenBudget
    ) -> AsyncIterator[pb.TrainClassifierResponse]:
        """Trains from what `requests` bring; the last reply is the report. `purse` pays for what is read.

        Raises LimitExceeded for a second training of a tenant or a classifier too many, InvalidArgument for texts that
        are wrong, too many or too few, and Unavailable (OVERLOADED, DRAINING).
        """
        if caller.tenant in self._tenants:
            raise _busy()
        self._tenants.add(caller.tenant)
        examples = Examples(self._limits, self._taken)
        try:
            await self._collect(requests, examples)
            await asyncio.to_thread(self._owned.store.room, caller.tenant, examples.name)
            began = self._clock()
            await self._place()
            try:
                async for reply in self._work(examples, caller, purse, began):
                    yield reply
            finally:
                self._places.release()
        finally:
            self._held -= examples.size
            self._tenants.discard(caller.tenant)

    async def stop(self, grace: float) -> None:
        """Solves nothing new, lets what is being solved finish for `grace` seconds, then ends it. Leaves no thread."""
        self._draining = True
        if self._solving:
            await asyncio.wait(self._solving, timeout=grace)
        for stop in self._solving.values():
            stop.set()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _collect(self, requests: AsyncIterator[pb.TrainClassifierRequest], examples: Examples) -> None:
        try:
            async with asyncio.timeout(self._limits.collect_seconds):
                async for message in requests:
                    self._held += examples.add(message)
                    if self._held > self._limits.held_bytes:
                        raise _overloaded()
        except TimeoutError:
            raise DeadlineExceeded("the texts did not come in time") from None
        examples.check()

    async def _place(self) -> None:
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise _overloaded() from None

    async def _work(
        self, examples: Examples, caller: Caller, purse: TokenBudget, began: float
    ) -> AsyncIterator[pb.TrainClassifierResponse]:
        count = len(examples.texts)
        chunks: list[Matrix] = []
        for start in range(0, count, _CHUNK):
            chunks.append(await self._vectors(examples.texts[start : start + _CHUNK], caller, purse))
            read = pb.TrainingProgress(read=min(start + _CHUNK, count), inputs=count)
            yield pb.TrainClassifierResponse(progress=read)
        fitted = await self._fit(np.concatenate(chunks), examples)
        version = await asyncio.to_thread(self._publish, caller.tenant, examples, fitted)
        done = _Done(fitted, version, self._clock() - began, purse.taken)
        yield pb.TrainClassifierResponse(report=_report(examples, done))

    async def _vectors(self, texts: list[str], caller: Caller, purse: TokenBudget) -> Matrix:
        """The encoder's vectors, float32 [texts, dimensions]."""
        async with self._batcher.permit(*caller.who, wait=True) as permit:
            reading = PreparedText(self._preparing, caller.who, wait=True)
            prompted = [self._encoder.prompt + text for text in texts]
            tokens = await self._encoder.tokeniser.encode(prompted, Cut.END, "inputs", reading)
            lengths = [each.length for each in tokens]
            purse.take(sum(lengths))
            rows = await permit.run([Item(self._encoder, each) for each in tokens], lengths, yields=True)
        return np.stack(rows)

    async def _fit(self, vectors: Matrix, examples: Examples) -> Fitted:
        if self._draining:
            raise drain_errors.draining()
        stop = threading.Event()
        solving = asyncio.get_running_loop().run_in_executor(self._threads, _fit, vectors, examples, stop)
        self._solving[solving] = stop
        try:
            async with asyncio.timeout(self._limits.solve_seconds):
                return await asyncio.shield(solving)
        except TimeoutError:
            raise DeadlineExceeded("the solver took too long: fewer texts or labels take less") from None
        except Stopped:
            raise drain_errors.draining() from None
        finally:
            stop.set()
            await asyncio.wait((solving,), timeout=_STOP_SECONDS)
            del self._solving[solving]
            if solving.done() and not solving.cancelled():
                solving.exception()  # looked at, so that nobody is told that it was not

    def _publish(self, tenant: str, examples: Examples, fitted: Fitted) -> int:
        head = Head(
            examples.labels,
            fitted.solution.weight.float().numpy(),
            fitted.solution.bias.float().numpy(),
            self._owned.probe,
        )
        made = self._owned.store.publish(
            tenant, examples.name, head, trained=self._now(), accuracy=fitted.accuracy, inputs=len(examples.texts)
        )
        return made.current


def _prepare(threads: int) -> None:
    """On a thread of the solver's. torch is imported there, for nobody needs it here before somebody trains."""
    import_module("torch").set_num_threads(threads)


def _fit(vectors: Matrix, examples: Examples, stop: threading.Event) -> Fitted:
    measuring = import_module("services.classification.custom.evaluation")
    sample = measuring.labelled(vectors, examples.numbers, len(examples.labels))
    fitted: Fitted = measuring.fit(sample, examples.recipe, stop)
    return fitted


def _report(examples: Examples, done: _Done) -> pb.TrainingReport:
    numbers, rows = examples.numbers, done.fitted.confusion
    labels = [
        pb.LabelReport(label=label, inputs=numbers.count(place), held_out=sum(rows[place]), classified=rows[place])
        for place, label in enumerate(examples.labels)
    ]
    return pb.TrainingReport(
        model=examples.name,
        version=done.version,
        accuracy=done.fitted.accuracy,
        labels=labels,
        regularisation=done.fitted.l2,
        seconds=done.seconds,
        usage=pb.ClassifyUsage(input_tokens=done.tokens),
    )


def _busy() -> LimitExceeded:
    return LimitExceeded(
        "the tenant already trains a classifier",
        reason="CONCURRENCY_LIMITED",
        subject="tenant",
        limit="trainings",
    )


def _overloaded() -> Unavailable:
    return Unavailable("too much is being trained", reason="OVERLOADED", retry_after=10.0)
