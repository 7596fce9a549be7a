"""Conversations through templates that checkpoints bring: whatever a template does, the caller is told of the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from transformers import AutoTokenizer

from meshgate.errors import InvalidArgument
from services.generation.text import conversation
from services.generation.text.prompt import PromptReader
from services.generation.text.time_limit import TimeLimitExceeded, limited
from tests.tinymodels.llama import build_tiny_llama

TURNS = [{"role": "user", "content": "hi"}]
RAISING = {
    "TemplateError": "{{ raise_exception('no') }}",
    "TemplateSyntaxError": "{% for %}",
    "UndefinedError": "{{ nobody.there }}",
    "UndefinedError of a turn": "{{ messages[7].content.text }}",
    "TypeError": "{{ 1 + 'a' }}",
    "ZeroDivisionError": "{{ 1 / 0 }}",
    "SecurityError": "{{ ''.__class__.__mro__ }}",
    "RecursionError": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "OverflowError": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "KeyError": "{{ {}.pop('x') }}",
    "ValueError": "{{ 'x'.index('y') }}",
    "UnknownFilter": "{{ messages | nosuchfilter }}",
    "AttributeError": "{{ messages[0].content.nosuch() }}",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path_factory.mktemp("tiny")))


def read(tokenizer: Any, template: str, turns: Sequence[Any] = TURNS) -> list[int]:
    tokenizer.chat_template = template
    return PromptReader(tokenizer).conversation(turns)


@pytest.mark.parametrize("name", RAISING)
def test_a_template_that_raises_names_the_field(tokenizer: Any, name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        read(tokenizer, RAISING[name])
    assert [each.field for each in refused.value.violations] == ["conversation"]
    assert "nobody" not in refused.value.message


def test_one_that_does_not_still_works(tokenizer: Any) -> None:
    assert read(tokenizer, "{{ messages[0].content }}") == tokenizer.encode("hi", add_special_tokens=False)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}", "takes too long"),
        ("{% for i in range(90000) %}{{ messages[0].content * 900 }}{% endfor %}", "too"),
    ],
    ids=["loops", "writes"],
)
def test_a_template_that_does_not_end_is_ended(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, template: str, said: str
) -> None:
    monkeypatch.setattr(conversation, "_RENDER_SECONDS", 0.2)
    with pytest.raises(InvalidArgument) as refused:
        read(tokenizer, template)
    assert said in refused.value.message
    assert [each.field for each in refused.value.violations] == ["conversation"]


def test_nothing_is_interrupted_after_its_end() -> None:
    for _ in range(200):
        try:
            with limited(0.0005):
                sum(range(1000))
        except TimeLimitExceeded:
            continue
    sum(range(100_000))
