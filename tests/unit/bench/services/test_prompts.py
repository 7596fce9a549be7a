"""What is asked is the same in every run, and different for each caller."""

from __future__ import annotations

import itertools

from bench.services import prompts
from bench.services.prompts import PASSAGES, SENTENCES


def test_texts_are_the_same_in_every_run_and_as_long_as_said() -> None:
    made = prompts.texts(SENTENCES, 100)
    assert made == prompts.texts(SENTENCES, 100)
    assert made[0].startswith("policy girl guy book story name member result person back week education")
    words = {len(text.split()) for text in made}
    assert (min(words), max(words)) == (SENTENCES.shortest, SENTENCES.longest)
    assert len(set(made)) == len(made)


def test_lengths_differ_and_so_do_their_texts() -> None:
    assert not set(prompts.texts(SENTENCES, 50)) & set(prompts.texts(PASSAGES, 50))


def test_prompts_are_a_few_dozen_different_ones() -> None:
    made = prompts.prompts()
    assert len(set(made)) == len(made) == 60


def test_callers_ask_all_there_is_before_anything_is_asked_again() -> None:
    items = prompts.prompts()
    asked = [prompts.taken(items, caller, 30, turn) for turn in range(2) for caller in range(30)]
    assert sorted(asked) == sorted(items)
    assert prompts.taken(items, 0, 30, 2) == asked[0]


def test_long_prompts_have_as_many_words_and_no_beginning_in_common() -> None:
    made = list(itertools.islice(prompts.long_prompts(1980), 20))
    assert {len(prompt.split()) for prompt in made} == {1980}
    assert len({prompt[:40] for prompt in made}) == 20
    assert made == list(itertools.islice(prompts.long_prompts(1980), 20))
