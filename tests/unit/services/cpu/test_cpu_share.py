"""Batches side by side share a CPU's threads; one that runs alone has what is fastest."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from services.classification import app as classification_app
from services.classification.config import ClassificationConfig
from services.cpu.cpu_share import CoreUsers, CpuShare
from services.embedding import app as embedding_app
from services.embedding.config import EmbeddingConfig
from services.encoders.encoder import Encoder
from services.encoders.pooling import Pooling
from services.model_process import SubprocessHost
from services.text.tokens import Tokens
from services.weights import load_weights
from services.weights.load_weights import Where
from services.weights.quality import QualityProbe
from tests.tinymodels.bert import build_tiny_bert, build_tiny_classifier


def test_a_batch_alone_has_all_threads_and_one_beside_others_its_part() -> None:
    used = list[int]()
    sharing = CpuShare(8, company=CoreUsers(), use=used.append)
    with sharing.batch(100):
        assert used == [8]
        with sharing.batch(100):
            assert used == [8, 4]
            with sharing.batch(100):
                assert used == [8, 4, 2]


def test_none_has_less_than_one() -> None:
    used = list[int]()
    sharing = CpuShare(2, company=CoreUsers(), use=used.append)
    with sharing.batch(1), sharing.batch(1), sharing.batch(1):
        assert used == [2, 1, 1]


def test_who_begins_alone_where_batches_overlapped_lately_is_soon_joined() -> None:
    used = list[int]()
    sharing = CpuShare(3, company=CoreUsers(), use=used.append)
    with sharing.batch(1), sharing.batch(1):
        pass
    for _ in range(15):
        with sharing.batch(1):
            assert used[-1] == 1
    with sharing.batch(1):
        assert used[-1] > 1, "as the crew has it"


def test_batches_of_other_models_count_too() -> None:
    company, used = CoreUsers(), list[int]()
    one, other = (CpuShare(4, company=company, use=used.append) for _ in range(2))
    with one.batch(1), other.batch(1):
        assert used == [4, 2]


def test_where_there_is_nothing_to_share_nothing_is_set() -> None:
    for threads in (0, 1):
        for serial in (False, True):
            sharing = CpuShare(threads, serial=serial, company=CoreUsers(), use=lambda _: 1 / 0)
            with sharing.batch(1):
                pass


def test_a_serial_model_runs_one_batch_at_a_time_with_all_threads() -> None:
    used, inside, most = list[int](), [0], [0]
    sharing = CpuShare(2, serial=True, company=CoreUsers(), use=used.append)
    begun = threading.Barrier(4)

    def run() -> None:
        begun.wait(10)
        for _ in range(50):
            with sharing.batch(1):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0)
                inside[0] -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert (most, set(used), len(used)) == ([1], {2}, 200)


def opened(module: Any, **settings: Any) -> bool:
    section: Any = type("Settings", (), {"quantisation": "none", "compile": False, **settings})()
    where = Where(torch.device("cpu"), torch.float32)
    yardstick = QualityProbe(lambda _: torch.zeros(1), lambda *_: 1.0, 8)
    return load_weights.load_weights(section, "model", where, lambda: module, [], yardstick)[1].serial


def test_what_changes_as_it_runs_is_serial() -> None:
    class Rotary(torch.nn.Module):
        rope_type = "dynamic"

    tiny = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    assert not opened(BertModel(tiny))
    follows: Any = BertModel(tiny)
    follows.embeddings.rotary = Rotary()
    assert opened(follows)


def test_an_encoder_says_the_same_to_threads_side_by_side() -> None:
    torch.manual_seed(3)
    config = BertConfig(vocab_size=99, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
    module: Any = BertModel(config)
    module.eval()
    opened(module)
    encoder = Encoder(module, 0)
    batches = [[Tokens([7 + row] * (3 + row), [0] * (3 + row)) for row in range(size)] for size in (1, 3, 6, 9)]
    wanted = [encoder.pooled(batch, [Pooling.MEAN] * len(batch)) for batch in batches]
    wrong, begun = list[float](), threading.Barrier(len(batches))

    def run(index: int) -> None:
        begun.wait(10)
        for _ in range(40):
            made = encoder.pooled(batches[index], [Pooling.MEAN] * len(batches[index]))
            if not torch.allclose(made, wanted[index], atol=1e-5):
                wrong.append(float((made - wanted[index]).abs().max()))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(batches))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert wrong == []


@pytest.mark.parametrize(("engine", "batches"), [({}, 2), ({"threads": 1}, 1), ({"concurrent_batches": 3}, 3)])
async def test_both_services_run_as_many_batches_as_they_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, int], batches: int
) -> None:
    monkeypatch.setattr("services.embedding.model_worker.THREADS", 2)
    monkeypatch.setattr("services.classification.model_worker.THREADS", 2)
    whole = {"server": {"tls": dict.fromkeys(("certificate", "key", "ca"), tmp_path)}, "engine": engine}
    model = {"source": str(build_tiny_bert(tmp_path)), "name": "tiny", "device": "cpu"}
    embedding = EmbeddingConfig.model_validate({**whole, "model": model})
    (tmp_path / "colour").mkdir()
    classes = {"source": str(build_tiny_classifier(tmp_path / "colour")), "name": "colour"}
    alone = {"classifiers": [classes], "zero_shot": None, "custom": None}
    classification = ClassificationConfig.model_validate({**whole, **alone})
    one, other = embedding_app.App(embedding), classification_app.App(classification)
    await one.start()
    await other.start()
    assert one._batcher._workers.count == batches
    assert other._slot.get().batcher._workers.count == batches
    await one.stop(1)
    await other.stop(1)
    for host in (embedding_app.build(embedding)._host, classification_app.build(classification)._host):
        assert isinstance(host, SubprocessHost)
        assert host._batches >= batches, "as many at a time as are asked for"
