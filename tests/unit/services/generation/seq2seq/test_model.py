"""The tiny T5 and the tiny Marian through our engine say exactly what transformers' own generate says."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BartConfig, MarianConfig, T5Config

from meshgate.errors import Internal
from meshgate.runtime.config import ConfigError
from services.generation import seq2seq
from services.generation.config import EngineConfig
from services.generation.engine.interface import FinishReason, Job, Sampling
from services.generation.scheduler.scheduler import Scheduler
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.text.detokenise import TokenBytes
from tests.support.fixtures.generation import Heard, Letters
from tests.tinymodels.seq2seq import PLACES, build_tiny_marian, build_tiny_t5

GREEDY = Sampling(temperature=0.0)
MOST = 30


@dataclass(frozen=True)
class Case:
    """A tiny model and its last token that texts are made of."""

    module: Any
    last: int

    def prompts(self, count: int, longest: int = 60) -> list[list[int]]:
        chance = random.Random(5)
        lengths = [chance.randrange(1, longest) for _ in range(count)]
        return [[chance.randrange(3, self.last) for _ in range(length)] for length in lengths]

    def reference(self, prompt: list[int], most: int, begin: int = 1, **settings: Any) -> list[int]:
        """What generate makes. What Marian's checkpoints have it put at the very end if there is none, we don't."""
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "num_beams": 1, "forced_eos_token_id": None, **settings}
        made = self.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, **settings)
        tokens: list[int] = made[0, begin:].tolist()
        return tokens


@pytest.fixture(scope="module", params=["t5", "marian"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    build = {"t5": build_tiny_t5, "marian": build_tiny_marian}[request.param]
    return load(build(tmp_path_factory.mktemp(request.param)))


def load(directory: Path) -> Case:
    module: Any = AutoModelForSeq2SeqLM.from_pretrained(directory, attn_implementation="sdpa")
    return Case(module.eval(), 80)


class Bench:
    """A scheduler over one of the models."""

    def __init__(self, module: Any, rows: int = 8, prefill_tokens: int = 64) -> None:
        self.model = seq2seq.wrap(module, rows, PLACES, 0, "model")
        tokens = TokenBytes(Letters(), self.model.vocabulary_size)
        self.scheduler = Scheduler(self.model, tokens, self.model.end_tokens, prefill_tokens)

    def add(
        self, prompt: list[int], most: int = MOST, sampling: Sampling = GREEDY, **rest: Any
    ) -> tuple[GenerationRequest, Heard]:
        heard = Heard()
        request = GenerationRequest(Job(prompt, most, sampling, **rest), heard, 0.0)
        self.scheduler.add(request)
        return request, heard

    def run(self) -> None:
        while not self.scheduler.idle():
            self.scheduler.step()


def test_a_prompt_alone_equals_generate(case: Case) -> None:
    for prompt in case.prompts(4):
        bench = Bench(case.module, rows=1)
        _, heard = bench.add(prompt)
        bench.run()
        assert heard.tokens[0] == case.reference(prompt, MOST)


@pytest.mark.parametrize(("rows", "prefill_tokens"), [(8, 256), (3, 7)])
def test_twenty_of_different_lengths_at_once_equal_generate(case: Case, rows: int, prefill_tokens: int) -> None:
    bench, prompts = Bench(case.module, rows, prefill_tokens), case.prompts(20)
    heard = [bench.add(prompt)[1] for prompt in prompts]
    bench.run()
    expected = [case.reference(prompt, MOST) for prompt in prompts]
    assert [one.tokens[0] for one in heard] == expected
    assert len({tuple(tokens) for tokens in expected}) > 12, "a model that says always the same would prove nothing"


def test_those_who_arrive_while_others_run_equal_generate(case: Case) -> None:
    bench, prompts = Bench(case.module, rows=8), case.prompts(8)
    heard = []
    for place, prompt in enumerate(prompts):
        heard.append(bench.add(prompt, MOST - place)[1])
        for _ in range(place % 3 + 1):
            bench.scheduler.step()
    bench.run()
    assert [one.tokens[0] for one in heard] == [
        case.reference(prompt, MOST - place) for place, prompt in enumerate(prompts)
    ]


def test_candidates_share_an_input_and_not_their_output(case: Case) -> None:
    (prompt,) = case.prompts(1)
    alone, few = Bench(case.module), Bench(case.module, rows=2)
    _, one = alone.add(prompt, sampling=Sampling(seed=12))
    _, three = few.add(prompt, sampling=Sampling(seed=10), candidates=3)
    alone.run()
    few.run()
    assert three.tokens[2] == one.tokens[0]
    assert len({tuple(tokens) for tokens in three.tokens.values()}) == 3


def test_one_that_is_cancelled_leaves_its_neighbours_alone(case: Case) -> None:
    bench, prompts = Bench(case.module, rows=4), case.prompts(5)
    added = [bench.add(prompt) for prompt in prompts]
    for _ in range(4):
        bench.scheduler.step()
    added[0][0].cancel()
    added[1][0].cancel()
    bench.run()
    assert [heard.finish[0].reason for _, heard in added[:2]] == [FinishReason.CANCELLED] * 2
    for prompt, (_, heard) in list(zip(prompts, added, strict=True))[2:]:
        assert heard.tokens[0] == case.reference(prompt, MOST)


@pytest.fixture
def breaking(case: Case) -> Iterator[list[bool]]:
    """While it is [True], the last layer of the decoder fails."""
    breaks = [False]

    def fail(*_: object) -> None:
        if breaks[0]:
            raise ValueError("broken")

    decoder = case.module.get_decoder()
    last = (decoder.block if hasattr(decoder, "block") else decoder.layers)[-1]
    handle = last.register_forward_pre_hook(fail)
    yield breaks
    handle.remove()


def test_an_input_that_fails_half_read_leaves_its_neighbours_alone(case: Case, breaking: list[bool]) -> None:
    bench, (prompt, broken) = Bench(case.module), case.prompts(2)
    _, heard = bench.add(prompt)
    bench.scheduler.step()
    breaking[0] = True
    with pytest.raises(ValueError, match="broken"):
        bench.model.prefill(bench.model.spare, broken, 0)
    breaking[0] = False
    bench.run()
    assert heard.tokens[0] == case.reference(prompt, MOST)


def test_a_broken_row_leaves_nothing_to_the_next(case: Case) -> None:
    """Of which the places beyond its own are seen, masked, because a neighbour is longer."""
    bench, (long, short) = Bench(case.module, rows=2), sorted(case.prompts(2), key=len, reverse=True)
    bench.model.warm_up()
    with torch.inference_mode():
        for cache in (bench.model._cache.own, bench.model._cache.cross):
            for layer in (*cache._keys, *cache._values):
                layer[1].fill_(torch.nan)
    bench.model.wipe(1)
    bench.add(long)
    for _ in range(5):
        bench.scheduler.step()
    _, heard = bench.add(short)
    bench.run()
    assert heard.tokens[0] == case.reference(short, MOST)


def test_what_a_checkpoint_never_makes_is_not_made(case: Case) -> None:
    (prompt,) = case.prompts(1)
    settings = case.module.generation_config
    banned, before = case.reference(prompt, MOST)[2], settings.bad_words_ids
    settings.bad_words_ids = [[banned], [3, 4]]
    bench = Bench(case.module)
    settings.bad_words_ids = [[banned]]
    expected = case.reference(prompt, MOST)
    settings.bad_words_ids = before
    _, heard = bench.add(prompt)
    bench.run()
    assert heard.tokens[0] == expected
    assert banned not in expected


def test_an_input_that_can_not_be_read_fails_alone(case: Case) -> None:
    bench, (prompt,) = Bench(case.module), case.prompts(1)
    _, heard = bench.add(prompt)
    _, broken = bench.add([9999])
    bench.run()
    assert isinstance(broken.error, Internal)
    assert heard.tokens[0] == case.reference(prompt, MOST)


def test_input_and_output_have_their_full_length_each(case: Case) -> None:
    bench, (prompt,) = Bench(case.module), case.prompts(1)
    prompt = (prompt * PLACES)[:PLACES]
    _, heard = bench.add(prompt, bench.model.longest_output)
    bench.run()
    assert (bench.model.source, bench.model.longest_output, len(heard.tokens[0])) == (PLACES, PLACES, PLACES)
    assert heard.tokens[0] == case.reference(prompt, PLACES)


def test_a_penalty_is_for_the_output_alone(case: Case) -> None:
    bench, prompts = Bench(case.module), case.prompts(6)
    penalised = Sampling(temperature=0.0, repetition_penalty=1.6)
    heard = [bench.add(prompt, sampling=penalised, penalise_prompt=False)[1] for prompt in prompts]
    bench.run()
    # generate counts the token that outputs start with as present; both models hardly ever make it.
    assert [one.tokens[0] for one in heard] == [case.reference(each, MOST, repetition_penalty=1.6) for each in prompts]


def test_what_a_checkpoint_forces_first_is_not_told(tmp_path: Path) -> None:
    case = load(build_tiny_marian(tmp_path))
    case.module.generation_config.forced_bos_token_id = 17
    bench, prompts = Bench(case.module), case.prompts(4)
    heard = [bench.add(prompt)[1] for prompt in prompts]
    bench.run()
    assert [one.tokens[0] for one in heard] == [case.reference(each, MOST + 1, begin=2) for each in prompts]
    assert bench.model.longest_output == PLACES - 1


def test_places_are_what_the_model_was_trained_for() -> None:
    engine = EngineConfig.model_validate({})
    assert seq2seq.bounded(MarianConfig(max_position_embeddings=128), 2048, engine, "model") == 128
    assert seq2seq.bounded(T5Config.from_dict({"n_positions": 512}), 2048, engine, "model") == 512
    assert seq2seq.bounded(T5Config(), 2048, engine, "model") == 2048


def test_what_is_not_served_is_refused_at_start(case: Case) -> None:
    one, two = (EngineConfig.model_validate({"tensor_parallel": parts}) for parts in (1, 2))
    with pytest.raises(ConfigError, match=r"models\.0\.source"):
        seq2seq.bounded(BartConfig(), 128, one, "models.0")
    with pytest.raises(ConfigError, match=r"models\.0\.source"):
        seq2seq.bounded(MarianConfig(share_encoder_decoder_embeddings=False), 128, one, "models.0")
    with pytest.raises(ConfigError, match="tensor_parallel"):
        seq2seq.bounded(T5Config(), 128, two, "model")


def test_a_checkpoint_that_does_not_say_how_to_begin_is_refused(case: Case) -> None:
    settings = case.module.generation_config
    settings.decoder_start_token_id, before = None, settings.decoder_start_token_id
    with pytest.raises(ConfigError, match="decoder_start_token_id"):
        seq2seq.wrap(case.module, 1, PLACES, 0, "model")
    settings.decoder_start_token_id = before
