"""Quantisation and compilation as configuration: what is refused, and a quality that is measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertModel, BitsAndBytesConfig

from meshgate.runtime import config as files
from meshgate.runtime.config import ConfigError
from services.generation.config import EngineConfig, GenerationConfig, ModelConfig
from services.generation.model import causal_model
from services.generation.model.causal_model import CausalModel
from services.models.config import SourceConfig
from services.weights import gpu_quantisation, load_weights, quality
from services.weights.load_weights import Where
from services.weights.quality import Figure, QualityProbe
from services.weights.unpadded import UnpaddedEncoder
from tests.tinymodels.bert import build_tiny_bert
from tests.tinymodels.llama import build_tiny_llama

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def settings(**more: Any) -> SourceConfig:
    return SourceConfig(source="x", name="m", **more)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bert(tmp_path_factory.mktemp("bert"))


class Asked:
    """A yardstick that counts."""

    def __init__(self) -> None:
        self.times = 0

    @property
    def yardstick(self) -> QualityProbe:
        return QualityProbe(self._answer, quality.cosine, 64)

    def _answer(self, module: Any) -> Tensor:
        self.times += 1
        states: Tensor = module(input_ids=torch.arange(5, 35).view(3, 10)).last_hidden_state
        return states.mean(1)


def open_(bert: Path, asked: Asked, **more: Any) -> tuple[Any, load_weights.Weights]:
    where = Where(CPU, torch.float32)
    return load_weights.load_weights(
        settings(**more), "models.2", where, lambda: BertModel.from_pretrained(bert), [bert], asked.yardstick
    )


def test_quality_is_measured_once_for_the_same_weights(bert: Path) -> None:
    asked = Asked()
    _, first = open_(bert, asked, quantisation="int8")
    assert first.quantisation == "int8"
    assert first.quality is not None
    assert 0.99 < first.quality < 1
    _, second = open_(bert, asked, quantisation="int8")
    assert (second, asked.times) == (first, 2)


def test_other_weights_have_a_figure_of_their_own(bert: Path, tmp_path: Path) -> None:
    asked = Asked()
    open_(bert, asked, quantisation="int8")
    weights = bert / "model.safetensors"
    weights.touch()
    open_(bert, asked, quantisation="int8")
    assert asked.times == 4


def test_a_figure_that_is_damaged_or_no_share_is_measured_again(bert: Path, home: Path) -> None:
    figure = Figure([bert], "int8")
    figure.keep(0.5)
    assert Figure([bert], "int8").kept() == 0.5
    assert Figure([bert], "nf4").kept() is None
    [file] = (home / "cache" / "quality").iterdir()
    for text in ("{", "[]", '{"quality": 2}', '{"quality": "x"}'):
        file.write_text(text)
        assert figure.kept() is None


def test_where_a_figure_cant_be_kept_the_model_is_served_all_the_same(bert: Path, home: Path) -> None:
    home.mkdir()
    (home / "cache").write_text("in the way")
    _, weights = open_(bert, Asked(), quantisation="int8")
    assert weights.quality


def test_without_quantisation_nothing_is_measured(bert: Path) -> None:
    asked = Asked()
    assert open_(bert, asked)[1] == load_weights.Weights("", None)
    assert asked.times == 0


def test_agreement() -> None:
    assert quality.same(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 4])) == 0.75
    assert quality.cosine(torch.eye(2), torch.tensor([[1.0, 0], [1, 0]])) == pytest.approx(0.5)
    assert quality.cosine(torch.ones(1, 2), -torch.ones(1, 2)) == 0
    assert quality.labels(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[2.0, 0], [1, 0]])) == 0.5
    assert quality.labels(torch.tensor([[0.0]]), torch.tensor([[100.0]])) == pytest.approx(0.5)


def test_what_a_device_cant_do_is_said_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^models\.2\.quantisation: nf4 is for GPUs"):
        load_weights.check(settings(quantisation="nf4"), "models.2", CPU)
    with pytest.raises(ConfigError, match=r"^model\.quantisation: on mps"):
        load_weights.check(settings(quantisation="int8"), "model", torch.device("mps"))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_quantisation, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^model\.quantisation: .*bitsandbytes and accelerate"):
        load_weights.check(settings(quantisation="int8"), "model", GPU)


@pytest.mark.parametrize(("name", "bits"), [("int8", "load_in_8bit"), ("nf4", "load_in_4bit")])
def test_a_gpus_weights_come_quantised_by_transformers(name: Any, bits: str) -> None:
    given = gpu_quantisation.options(name, GPU, torch.bfloat16)
    assert isinstance(given["quantization_config"], BitsAndBytesConfig)
    assert getattr(given["quantization_config"], bits) is True
    assert given["device_map"] == {"": GPU}


def test_without_a_compiler_nothing_is_loaded(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"^models\.2\.compile: .*no-such-compiler"):
        open_(Path("/nowhere"), Asked(), compile=True)


def refusal(text: str, tmp_path: Path) -> str:
    path = tmp_path / "generation.toml"
    path.write_text('[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n' + text)
    with pytest.raises(ConfigError) as error:
        files.load(path, GenerationConfig)
    return str(error.value)


def test_what_does_not_go_together_is_refused_by_its_key(tmp_path: Path) -> None:
    assert "model.compile: only encoders" in refusal("[model]\ncompile = true\n", tmp_path)
    parallel = '[model]\nquantisation = "int8"\n[engine]\ntensor_parallel = 2\n'
    assert "model.quantisation: not with engine.tensor_parallel" in refusal(parallel, tmp_path)
    both = '[model]\nquantisation = "int8"\ncompile = true\n'
    assert "model.compile: not together with quantisation" in refusal(both, tmp_path)
    assert "model.quantisation: must be one of none, int8, nf4" in refusal('[model]\nquantisation = "int3"\n', tmp_path)


def test_encoders_are_opened_without_padding(bert: Path) -> None:
    assert isinstance(open_(bert, Asked())[0].encoder, UnpaddedEncoder)
    assert isinstance(open_(bert, Asked(), quantisation="int8")[0].encoder, UnpaddedEncoder)


@pytest.mark.parametrize("quantisation", ["none", "int8"])
def test_models_of_llamas_kind_are_opened_for_their_pass(quantisation: str, tmp_path: Path) -> None:
    directory = str(build_tiny_llama(tmp_path))
    section = ModelConfig.model_validate({"source": directory, "device": "cpu", "quantisation": quantisation})
    loaded, _ = causal_model.load(section, EngineConfig.model_validate({"max_batch": 2}))
    assert isinstance(loaded, CausalModel)
    assert loaded._llama is not None
