"""What was reserved for a call bounds the work of the encoders: labels count, and so do messages in hand together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import InvalidArgument
from meshgate.rpc import metadata, tls
from meshgate.rpc.server import ServerConfig
from meshgate.v1 import classification_pb2 as pb
from services.classification.app import App
from services.classification.config import ClassificationConfig, ClassifierConfig, EngineConfig, ZeroShotConfig
from services.classification.servicer import ClassificationServicer
from services.common.checks import TokenBudget
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("caps")
    for name, build in (("bert", build_tiny_bert), ("classifier", build_tiny_classifier)):
        (root / name).mkdir()
        build(root / name)
    return root


@pytest.fixture
async def servicer(directory: Path) -> AsyncIterator[ClassificationServicer]:
    config = ClassificationConfig(
        server=ServerConfig(tls=tls.TlsConfig(certificate=directory, key=directory, ca=directory)),
        classifiers=(ClassifierConfig(source=str(directory / "classifier"), name="colour"),),
        zero_shot=ZeroShotConfig(source=str(directory / "bert"), name="any", max_input_tokens=64),
        engine=EngineConfig(max_batch=8, dtype="float32", device="cpu"),
    )
    app = App(config)
    await app.start()
    yield ClassificationServicer(app._slot)
    await app.stop(1)


def capped(cap: int) -> Any:
    return FakeContext((metadata.TOKEN_CAP, str(cap)))


def zero_shot() -> pb.ClassifyRequest:
    made = pb.ClassifyRequest(inputs=[pb.ClassificationInput(text="river")])
    made.candidate_labels.labels.extend(pb.CandidateLabel(name=name) for name in ("bank", "sand", "sea"))
    return made


def test_a_purse_never_gives_more_than_is_in_it() -> None:
    purse = TokenBudget(10)
    purse.take(7)
    with pytest.raises(InvalidArgument) as caught:
        purse.take(4)
    assert caught.value.reason == "TOKEN_CAP_EXCEEDED"
    purse.take(3)
    assert purse.taken == 10
    TokenBudget(None).take(10**9)


async def test_labels_count_before_the_work(servicer: ClassificationServicer) -> None:
    needed = (await servicer.Classify(zero_shot(), capped(10_000))).usage.input_tokens
    for _ in range(2):  # known labels count as well
        with pytest.raises(InvalidArgument) as caught:
            await servicer.Classify(zero_shot(), capped(needed - 1))
        assert caught.value.reason == "TOKEN_CAP_EXCEEDED"
        assert (await servicer.Classify(zero_shot(), capped(needed))).usage.input_tokens == needed


async def test_messages_in_hand_together_share_one_cap(servicer: ClassificationServicer) -> None:
    request = pb.ClassifyRequest(inputs=[pb.ClassificationInput(text="river bank")])
    needed = (await servicer.Classify(request, capped(10_000))).usage.input_tokens
    answered = 0

    async def requests() -> AsyncIterator[pb.ClassifyStreamRequest]:
        for _ in range(8):
            yield pb.ClassifyStreamRequest(request=request)

    with pytest.raises(InvalidArgument) as caught:
        async for _ in servicer.ClassifyStream(requests(), capped(3 * needed + 1)):
            answered += 1
    assert caught.value.reason == "TOKEN_CAP_EXCEEDED"
    assert answered <= 3
