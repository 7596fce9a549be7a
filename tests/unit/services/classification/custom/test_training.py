"""Training through the servicer over a tiny encoder: what is served, to whom, within which bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import (
    DeadlineExceeded,
    InvalidArgument,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from meshgate.v1 import classification_pb2 as pb
from services.classification.custom import evaluation
from services.classification.custom.training_plan import Stopped
from services.classification.servicer import ClassificationServicer
from tests.support.fixtures.classification_service import (
    COLOURS,
    build,
    classify,
    configured,
    examples,
    of,
    running,
    sent,
    stopping,
    train,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models"))


@pytest.fixture
async def servicer(models: Path, tmp_path: Path) -> AsyncIterator[ClassificationServicer]:
    async with running(configured(models, tmp_path)) as servicer:
        yield servicer


async def listed(servicer: ClassificationServicer, tenant: str = "acme") -> dict[str, int]:
    reply = await servicer.ListClassifiers(pb.ListClassifiersRequest(), of(tenant))
    return {each.model: each.version for each in reply.classifiers}


def contents(directory: Path) -> list[bytes]:
    """Of all first versions."""
    return [path.read_bytes() for path in directory.rglob("1.safetensors")]


async def refusal(call: Any) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await call
    return caught.value


async def test_what_was_trained_is_served_at_once(servicer: ClassificationServicer) -> None:
    replies = await train(servicer)
    assert [reply.WhichOneof("event") for reply in replies] == ["progress", "report"]
    assert (replies[0].progress.read, replies[0].progress.inputs) == (10, 10)
    report = replies[-1].report
    assert (report.model, report.version) == ("mood", 1)
    assert [(each.label, each.inputs, each.held_out, sum(each.classified)) for each in report.labels] == [
        ("cold", 5, 1, 1),
        ("warm", 5, 1, 1),
    ]
    assert report.accuracy == sum(each.classified[place] for place, each in enumerate(report.labels)) / 2
    assert report.usage.input_tokens > 10
    assert report.seconds > 0
    reply = await classify(servicer, "mood", "aaa aaa", "zzz zzz")
    assert reply.model == "mood"
    assert [result.labels[0].label for result in reply.results] == ["warm", "cold"]
    assert sum(each.score for each in reply.results[0].labels) == pytest.approx(1)


async def test_the_same_texts_and_seed_give_the_same_numbers(servicer: ClassificationServicer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await train(servicer, name, seed=5)
    assert len(contents(tmp_path)) == 2
    assert len(set(contents(tmp_path))) == 1


async def test_options_work_as_with_any_classifier(servicer: ClassificationServicer) -> None:
    await train(servicer)
    inputs = [pb.ClassificationInput(text="aaa")]
    one = pb.ClassifyRequest(model="mood", inputs=inputs, options=pb.ClassifyOptions(top_k=1))
    assert len((await servicer.Classify(one, of())).results[0].labels) == 1
    raw = pb.ClassifyOptions(score_function=pb.SCORE_FUNCTION_NONE)
    found = await servicer.Classify(pb.ClassifyRequest(model="mood", inputs=inputs, options=raw), of())
    assert sum(each.score for each in found.results[0].labels) != pytest.approx(1)

    async def requests() -> AsyncIterator[pb.ClassifyStreamRequest]:
        yield pb.ClassifyStreamRequest(request=one)
        yield pb.ClassifyStreamRequest(request=pb.ClassifyRequest(inputs=inputs))

    replies = [reply async for reply in servicer.ClassifyStream(requests(), of())]
    assert [reply.response.model for reply in replies] == ["mood", "mood"]


async def test_only_its_tenant_sees_it(servicer: ClassificationServicer) -> None:
    await train(servicer)
    assert await listed(servicer) == {"mood": 1}
    assert await listed(servicer, "other") == {}
    others: list[Any] = [
        classify(servicer, "mood", "aaa", tenant="other"),
        classify(servicer, "mood", "aaa", tenant=""),
        servicer.DeleteClassifier(pb.DeleteClassifierRequest(model="mood"), of("other")),
        servicer.RollbackClassifier(pb.RollbackClassifierRequest(model="mood"), of("other")),
    ]
    for call in others:
        assert (await refusal(call)).reason == "MODEL_NOT_FOUND"
    await train(servicer, tenant="other", inputs=examples({"x": COLOURS["warm"], "y": COLOURS["cold"]}))
    mine, theirs = [await classify(servicer, "mood", "aaa", tenant=tenant) for tenant in ("acme", "other")]
    assert (mine.results[0].labels[0].label, theirs.results[0].labels[0].label) == ("warm", "x")


async def test_who_has_no_tenant_has_no_classifiers(servicer: ClassificationServicer) -> None:
    with pytest.raises(PermissionDenied):
        await train(servicer, tenant="")
    assert isinstance(await refusal(listed(servicer, "")), PermissionDenied)


async def test_versions_go_back_and_forth_and_away(servicer: ClassificationServicer) -> None:
    await train(servicer)
    swapped = examples({"warm": COLOURS["cold"], "cold": COLOURS["warm"]})
    assert (await train(servicer, inputs=swapped))[-1].report.version == 2

    async def best() -> str:
        return (await classify(servicer, "mood", "aaa aaa")).results[0].labels[0].label

    assert await best() == "cold"
    back = await servicer.RollbackClassifier(pb.RollbackClassifierRequest(model="mood"), of())
    assert (back.classifier.version, [each.version for each in back.classifier.versions]) == (1, [1, 2])
    assert back.classifier.versions[0].labels == ["cold", "warm"]
    assert await best() == "warm"
    await servicer.RollbackClassifier(pb.RollbackClassifierRequest(model="mood", version=2), of())
    assert await best() == "cold"
    again = servicer.RollbackClassifier(pb.RollbackClassifierRequest(model="mood", version=3), of())
    assert (await refusal(again)).reason == "VERSION_NOT_FOUND"
    await servicer.DeleteClassifier(pb.DeleteClassifierRequest(model="mood"), of())
    assert await listed(servicer) == {}
    assert isinstance(await refusal(classify(servicer, "mood", "aaa")), NotFound)


async def test_a_restart_forgets_nothing(models: Path, tmp_path: Path) -> None:
    async with running(configured(models, tmp_path)) as servicer:
        await train(servicer)
        before = await classify(servicer, "mood", "aaa aaa")
    async with running(configured(models, tmp_path)) as servicer:
        assert await listed(servicer) == {"mood": 1}
        assert await classify(servicer, "mood", "aaa aaa") == before


async def test_what_is_wrong_changes_nothing(servicer: ClassificationServicer) -> None:
    for name, inputs in (("mood", examples()[:1]), ("colour", examples()), ("any", examples())):
        with pytest.raises(InvalidArgument):
            await train(servicer, name, inputs)
    assert await listed(servicer) == {}
    await train(servicer)  # the tenant's place is free again


async def test_each_tenant_trains_one_at_a_time(servicer: ClassificationServicer) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[pb.TrainClassifierRequest]:
        yield pb.TrainClassifierRequest(model="slow", inputs=examples())
        begun.set()
        await go_on.wait()

    async def first() -> int:
        return len([reply async for reply in servicer.TrainClassifier(slow(), of())])

    task = asyncio.create_task(first())
    await begun.wait()
    with pytest.raises(LimitExceeded) as caught:
        await train(servicer)
    assert (caught.value.reason, caught.value.retry_after) == ("CONCURRENCY_LIMITED", None)
    await train(servicer, tenant="other")  # who only sends texts holds up no other tenant
    go_on.set()
    assert await task == 2


async def test_a_caller_that_sends_nothing_is_ended(models: Path, tmp_path: Path) -> None:
    async def silent() -> AsyncIterator[pb.TrainClassifierRequest]:
        await asyncio.Event().wait()
        yield pb.TrainClassifierRequest()

    async with running(configured(models, tmp_path, collect_seconds=0.01)) as servicer:
        with pytest.raises(DeadlineExceeded):
            _ = [reply async for reply in servicer.TrainClassifier(silent(), of())]


async def test_all_texts_in_hand_together_are_bounded(models: Path, tmp_path: Path) -> None:
    async with running(configured(models, tmp_path, held_bytes=1024)) as servicer:
        large = [pb.LabelledInput(text=f"{each} " * 20, label="xy"[each % 2]) for each in range(40)]
        with pytest.raises(Unavailable):
            await train(servicer, inputs=large)
        await train(servicer)


async def test_a_caller_that_leaves_ends_the_solver_and_changes_nothing(
    servicer: ClassificationServicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    solving, stopped = threading.Event(), threading.Event()

    def endless(sample: object, recipe: object, stop: threading.Event) -> None:
        solving.set()
        stop.wait(30)
        stopped.set()

    monkeypatch.setattr(evaluation, "fit", endless)
    task = asyncio.create_task(train(servicer))
    assert await asyncio.to_thread(solving.wait, 30)
    assert (await classify(servicer, "colour", "x")).results  # meanwhile others are served
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stopped.is_set()
    assert await listed(servicer) == {}
    monkeypatch.undo()
    await train(servicer)


async def test_a_solver_that_takes_too_long_is_ended(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(sample: object, recipe: object, stop: threading.Event) -> None:
        stop.wait(30)

    monkeypatch.setattr(evaluation, "fit", endless)
    async with running(configured(models, tmp_path, solve_seconds=0.01)) as servicer:
        with pytest.raises(DeadlineExceeded):
            await train(servicer)


async def test_what_is_being_solved_when_the_service_stops_is_served_at_the_next_start(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solving, go_on, fit = threading.Event(), threading.Event(), evaluation.fit

    def slow(*told: Any) -> Any:
        solving.set()
        assert go_on.wait(30)
        return fit(*told)

    monkeypatch.setattr(evaluation, "fit", slow)
    async with stopping(configured(models, tmp_path)) as (servicer, stop):
        task = asyncio.create_task(train(servicer))
        assert await asyncio.to_thread(solving.wait, 30)
        stopped = asyncio.ensure_future(stop(30))
        await asyncio.sleep(0)
        go_on.set()
        await task
        await stopped
    async with running(configured(models, tmp_path)) as again:
        assert await listed(again) == {"mood": 1}


async def test_what_takes_longer_than_the_service_has_is_told_that_it_stops(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solving = threading.Event()

    def endless(sample: object, recipe: object, stop: threading.Event) -> None:
        solving.set()
        assert stop.wait(30)
        raise Stopped

    monkeypatch.setattr(evaluation, "fit", endless)
    async with stopping(configured(models, tmp_path)) as (servicer, stop):
        task = asyncio.create_task(train(servicer))
        assert await asyncio.to_thread(solving.wait, 30)
        await stop(0.01)
        refused = await refusal(task)
        assert (type(refused), refused.reason) == (Unavailable, "DRAINING")


async def test_texts_are_paid_for(servicer: ClassificationServicer) -> None:
    context = of()
    request = pb.TrainClassifierRequest(model="mood", inputs=examples())
    replies = [reply async for reply in servicer.TrainClassifier(sent(request), context)]
    taken = replies[-1].report.usage.input_tokens
    assert dict(context.trailers)["x-meshgate-usage"] == f"{taken},0"


async def test_without_a_place_nothing_is_trained(models: Path, tmp_path: Path) -> None:
    config = configured(models, tmp_path).model_copy(update={"custom": None})
    async with running(config) as servicer:
        with pytest.raises(Unimplemented):
            await train(servicer)
        assert (await classify(servicer, "colour", "x")).results
