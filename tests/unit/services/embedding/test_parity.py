"""Vectors as sentence-transformers has them, for what its files say of a model; what they say and we don't serve is
refused by its name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import RobertaConfig, RobertaModel

from meshgate.errors import Internal, InvalidArgument
from meshgate.rpc import tls
from meshgate.rpc.server import ServerConfig
from meshgate.runtime.config import ConfigError
from meshgate.v1 import embedding_pb2 as pb
from services.embedding import model, vectors
from services.embedding.app import App
from services.embedding.config import EmbeddingConfig, EngineConfig, ModelConfig
from services.embedding.servicer import EmbeddingServicer
from services.text.tokens import Cut
from tests.kinds import tokenisers
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.bert import build_tiny_bert

_RobertaConfig: Any = RobertaConfig  # whose keywords are typed one by one
TEXTS = ("Hello World", "an ÜBER text, of several words", "x")
LONG = "one two three " * 40
PACKAGE = "sentence_transformers.models."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tiny_bert(tmp_path)
    cased(tmp_path)
    modules(tmp_path)
    write(tmp_path, "config_sentence_transformers.json", prompts={})
    return tmp_path


def cased(folder: Path) -> None:
    """A tokeniser that knows capital letters apart."""
    file = folder / "tokenizer.json"
    said = json.loads(file.read_text())
    said["normalizer"] = None
    file.write_text(json.dumps(said))


def modules(folder: Path, *after: str) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"{n}_{kind}", kind) for n, kind in enumerate(after, 2))]
    listed = [{"idx": n, "name": str(n), "path": path, "type": PACKAGE + kind} for n, (path, kind) in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(listed))
    write(folder, "1_Pooling/config.json", word_embedding_dimension=32, pooling_mode_mean_tokens=True)


def write(folder: Path, name: str, **said: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(said))


def limited(folder: Path, tokens: int) -> None:
    """The limit as the tokeniser has it."""
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": tokens}))


async def embedded(folder: Path, *texts: str, **options: Any) -> pb.EmbedResponse:
    nowhere = tls.TlsConfig(certificate=folder, key=folder, ca=folder)
    section = ModelConfig(source=str(folder), name="m", dtype="float32", device="cpu")
    app = App(EmbeddingConfig(server=ServerConfig(tls=nowhere), model=section, engine=EngineConfig()))
    await app.start()
    try:
        context: Any = FakeContext()
        request = pb.EmbedRequest(inputs=texts, options=pb.EmbedOptions(**options))
        return await EmbeddingServicer(app._slot).Embed(request, context)
    finally:
        await app.stop(1)


def numbers(reply: pb.EmbedResponse) -> NDArray[np.float32]:
    return np.array([each.floats.values for each in reply.embeddings], dtype=np.float32)


def theirs(folder: Path, *texts: str, **options: Any) -> Any:
    return SentenceTransformer(str(folder), device="cpu").encode(list(texts), **options)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
async def test_each_pooling(folder: Path, mode: str) -> None:
    write(folder, "1_Pooling/config.json", embedding_dimension=32, pooling_mode=mode)
    made = await embedded(folder, *TEXTS, normalise=False)
    np.testing.assert_allclose(numbers(made), theirs(folder, *TEXTS), atol=1e-5)


async def test_letters_are_made_small_where_the_files_say_so(folder: Path) -> None:
    before = numbers(await embedded(folder, *TEXTS, normalise=False))
    write(folder, "sentence_bert_config.json", do_lower_case=True, max_seq_length=64)
    made = numbers(await embedded(folder, *TEXTS, normalise=False))
    np.testing.assert_allclose(made, theirs(folder, *TEXTS), atol=1e-5)
    assert np.abs(made[0] - before[0]).max() > 1e-3


@pytest.mark.parametrize("where", ["file", "tokeniser", "file before tokeniser", "arguments"])
async def test_the_length_is_where_the_files_have_it(folder: Path, where: str) -> None:
    if where == "file":
        write(folder, "sentence_bert_config.json", max_seq_length=24, do_lower_case=False)
    elif where == "arguments":
        write(folder, "sentence_bert_config.json", processor_kwargs={"model_max_length": 24})
    else:
        limited(folder, 24 if where == "tokeniser" else 20)
        if where != "tokeniser":
            write(folder, "sentence_bert_config.json", max_seq_length=24)
    made = await embedded(folder, LONG, truncation=pb.TRUNCATION_END, normalise=False)
    assert made.embeddings[0].tokens == 24
    np.testing.assert_allclose(numbers(made), theirs(folder, LONG), atol=1e-5)


async def test_a_default_prompt_stands_before_each_text(folder: Path) -> None:
    said = {"prompts": {"query": "find: ", "plain": ""}, "default_prompt_name": "query"}
    write(folder, "config_sentence_transformers.json", **said)
    made = numbers(await embedded(folder, *TEXTS, normalise=False))
    np.testing.assert_allclose(made, theirs(folder, *TEXTS), atol=1e-5)
    bare = numbers(await embedded(folder, *TEXTS, normalise=False, prompt_name="plain"))
    np.testing.assert_allclose(bare, theirs(folder, *TEXTS, prompt_name="plain"), atol=1e-5)
    assert np.abs(bare - made).max() > 1e-3


async def test_dimensions_are_cut_as_the_files_say(folder: Path) -> None:
    write(folder, "config_sentence_transformers.json", prompts={}, truncate_dim=8)
    made = await embedded(folder, *TEXTS, normalise=False)
    assert made.dimensions == 8
    np.testing.assert_allclose(numbers(made), theirs(folder, *TEXTS), atol=1e-5)
    assert (await embedded(folder, "x", dimensions=16)).dimensions == 16


@pytest.mark.parametrize(
    ("similarity", "after", "scaled"),
    [
        ("dot", (), False),
        ("euclidean", (), False),
        ("cosine", (), True),
        (None, (), True),
        ("dot", ("Normalize",), True),
    ],
)
async def test_vectors_keep_their_length_where_it_is_compared(
    folder: Path, similarity: str | None, after: tuple[str, ...], scaled: bool
) -> None:
    modules(folder, *after)
    write(folder, "config_sentence_transformers.json", prompts={}, similarity_fn_name=similarity)
    made = numbers(await embedded(folder, *TEXTS))
    np.testing.assert_allclose(made, theirs(folder, *TEXTS, normalize_embeddings=scaled), atol=1e-5)
    assert bool(np.allclose(np.linalg.norm(made, axis=1), 1)) is scaled


async def test_a_language_model_without_files_is_pooled_at_its_last_token(folder: Path) -> None:
    for name in ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertForCausalLM"]}))
    made = numbers(await embedded(folder, *TEXTS, normalise=False))
    np.testing.assert_allclose(made, theirs(folder, *TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("file", "said", "named"),
    [
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task of 'fill-mask'"),
        ("sentence_bert_config.json", {"module_output_name": "scores"}, "module_output_name of 'scores'"),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}, "modality_config"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"padding": True}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"model_args": {"num_hidden_layers": 1}}, "model_args.num_hidden_layers"),
        ("sentence_bert_config.json", {"config_kwargs": {"hidden_act": "relu"}}, "config_kwargs.hidden_act"),
        (
            "sentence_bert_config.json",
            {"tokenizer_args": {"add_prefix_space": True}},
            "tokenizer_args.add_prefix_space",
        ),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, "query_expansion"),
        ("sentence_bert_config.json", {"query_length": 32}, "query_length of 32"),
        ("sentence_bert_config.json", {"max_seq_length": "many"}, "max_seq_length: 'many'"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case: 'yes'"),
        ("sentence_roberta_config.json", {"query_length": 32}, "sentence_roberta_config.json: query_length of 32"),
        ("config_sentence_transformers.json", {"default_prompt_name": "none"}, "default_prompt_name: no such prompt"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}, "similarity_fn_name: 'maxsim'"),
        ("config_sentence_transformers.json", {"truncate_dim": -1}, "truncate_dim: -1"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type of 'SparseEncoder'"),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "it leaves the prompt out"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "not served: cls, mean"),
        ("2_Normalize/config.json", {"module_input_name": "token_embeddings"}, "2_Normalize: it is not for the pooled"),
    ],
)
def test_what_is_not_served_is_refused_by_its_name(folder: Path, file: str, said: dict[str, Any], named: str) -> None:
    modules(folder, "Normalize")
    write(folder, file, **said)
    with pytest.raises(ConfigError) as refused:
        model.load(ModelConfig(source=str(folder), name="m", dtype="float32", device="cpu"), "models.1")
    assert str(refused.value).startswith("models.1.source: ")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_positions_that_roberta_lacks_are_not_used(tmp_path: Path) -> None:
    tokeniser = tokenisers.trained("bytes")
    tokeniser.model_max_length = 512
    tokeniser.save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = _RobertaConfig(vocab_size=400, max_position_embeddings=514, pad_token_id=1, type_vocab_size=1, **sizes)
    RobertaModel(config).save_pretrained(tmp_path)
    made = await embedded(tmp_path, LONG * 20, truncation=pb.TRUNCATION_END, normalise=False)
    assert made.embeddings[0].tokens == 512
    np.testing.assert_allclose(numbers(made), theirs(tmp_path, LONG * 20), atol=1e-5)
    limited(tmp_path, 513)
    with pytest.raises(InvalidArgument, match="takes 512"):
        await embedded(tmp_path, LONG * 20)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("normalise", [True, False])
def test_what_is_no_number_is_an_error(bad: float, normalise: bool) -> None:
    with pytest.raises(Internal):
        vectors.shaped(np.array([1, bad, 2], dtype=np.float32), None, normalise=normalise)


def test_large_numbers_are_scaled_and_too_large_ones_are_refused() -> None:
    huge = np.full(4, 1e30, dtype=np.float32)
    np.testing.assert_allclose(vectors.shaped(huge, None, normalise=True), 0.5)
    with pytest.raises(InvalidArgument, match="float16"):
        vectors.encoded(vectors.shaped(huge, None, normalise=False), pb.EMBEDDING_ENCODING_FLOAT16)


async def test_what_a_default_prompt_adds_is_listed(folder: Path) -> None:
    nowhere = tls.TlsConfig(certificate=folder, key=folder, ca=folder)
    section = ModelConfig(source=str(folder), name="m", dtype="float32", device="cpu")
    listed = []
    files: list[dict[str, Any]] = [{"prompts": {}}, {"prompts": {"query": "find: "}, "default_prompt_name": "query"}]
    for said in files:
        write(folder, "config_sentence_transformers.json", **said)
        app = App(EmbeddingConfig(server=ServerConfig(tls=nowhere), model=section, engine=EngineConfig()))
        await app.start()
        listed.append(app._slot.get().cards[0])
        tokens = app._slot.get().default.model.tokeniser.read(["find: x", "x"], Cut.END, "inputs")
        await app.stop(1)
    assert [card.HasField("default_prompt_tokens") for card in listed] == [False, True]
    assert listed[1].default_prompt_tokens >= tokens[0].length - tokens[1].length > 0
