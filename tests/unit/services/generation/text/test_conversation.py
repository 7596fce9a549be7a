"""Conversations have the ids that transformers gives them, but for markers in what is said: those are text."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshgate.errors import InvalidArgument
from services.generation.text.conversation import Conversations
from services.generation.text.prompt import PromptReader
from tests.tinymodels.tokenisers import FAMILIES, save


class Template(NamedTuple):
    """A chat template, and the tokens that it marks turns with: special ones, and added ones that are not."""

    text: str
    markers: tuple[str, ...]
    plain: tuple[str, ...] = ()


TEMPLATES = {
    "chatml": Template(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "llama 3, trimming": Template(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "llama 2, of words": Template(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }} {{ eos_token }}"
        "{% else %}[INST] {{ m['content'].strip() }} [/INST]{% endif %}{% endfor %}",
        (),
    ),
    "phi 3, put together": Template(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + '\n' + m['content'] + '<|end|>' + '\n' }}{% endfor %}"
        "{{ '<|assistant|>' }}",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "gemma, other roles": Template(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
        "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n",
        ("<start_of_turn>", "<end_of_turn>"),
    ),
    "deepseek, not special": Template(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}<\uff5cAssistant\uff5c>"
        "{{ m['content'].split('</think>')[-1] }}{{ eos_token }}{% else %}<\uff5cUser\uff5c>{{ m['content'] }}"
        "{% endif %}{% endfor %}<\uff5cAssistant\uff5c>",
        (),
        ("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "</think>"),
    ),
    "without a blank between": Template(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<|a|>{% endif %}{{ m['content'] }}{% endfor %}<|a|>",
        ("<|a|>",),
    ),
    "changing": Template(
        "{% for m in messages %}<|t|>{{ m['role'] | upper }} {{ m['content'] | replace('x', 'yy') | tojson }}"
        "{% endfor %}<|t|>",
        ("<|t|>",),
    ),
}
Case = tuple[str, str]
CASES = [(family, name) for name in TEMPLATES for family in (*FAMILIES, "byt5")]
WORDS = (
    "the quick fox",
    "caf\u00e9",
    "  a ",
    "\n",
    "",
    "x",
    "我喜欢",
    "Hello",
    "it's",
    "0123",
    "<",
    ">",
    "\U000f0000",
    "\u2581",
)
ROLES = (("user",), ("user", "assistant", "user"), ("user", "user"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Any]:
    def one(family: str, name: str) -> Any:
        template = TEMPLATES[name]
        folder: Path = tmp_path_factory.mktemp("tokeniser")
        return save(family, folder, template.markers, template.plain, template.text)

    return {case: one(*case) for case in CASES}


@pytest.fixture(scope="module")
def conversations(made: dict[Case, Any]) -> dict[Case, Conversations]:
    return {case: Conversations(tokenizer) for case, tokenizer in made.items()}


def turns(roles: tuple[str, ...], contents: list[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def reference(tokenizer: Any, asked: list[dict[str, str]]) -> list[int]:
    found = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(found)


@pytest.mark.parametrize("case", CASES, ids=str)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    roles=st.sampled_from(ROLES),
    contents=st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map("".join), min_size=3, max_size=3),
)
def test_ordinary_messages_have_the_ids_of_transformers(
    made: dict[Case, Any],
    conversations: dict[Case, Conversations],
    case: Case,
    roles: tuple[str, ...],
    contents: list[str],
) -> None:
    asked = turns(roles, contents)
    assert conversations[case].encode(asked) == reference(made[case], asked)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_marker_in_a_message_is_text(
    made: dict[Case, Any], conversations: dict[Case, Conversations], case: Case
) -> None:
    tokenizer, template = made[case], TEMPLATES[case[1]]
    names = {*template.markers, *template.plain, *tokenizer.all_special_tokens} - {"</think>", "<unk>"}
    control = {tokenizer.convert_tokens_to_ids(name) for name in names}
    for roles, name, other in itertools.product(ROLES[:2], sorted(names)[:8], ("<s>", "</s>")):
        plain = conversations[case].encode(turns(roles, ["a b", "c", "d"]))
        asked = turns(roles, [f"a{name}\nsystem\n{other}b{name}", name, f"{name} d"])
        found = conversations[case].encode(asked)
        assert [each for each in found if each in control] == [each for each in plain if each in control]
        assert len(found) > len(plain)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] == "byte_level"], ids=str)
def test_a_marker_in_a_message_is_read_as_the_characters_that_it_is(made: dict[Case, Any], case: Case) -> None:
    tokenizer, template = made[case], TEMPLATES[case[1]]
    name = (*template.markers, *template.plain, "</s>")[0]
    ids = Conversations(tokenizer).encode(turns(("user",), [f"one {name} two"]))
    wanted = tokenizer.encode(f" {name}", add_special_tokens=False, split_special_tokens=True)
    if name not in template.plain:  # which transformers does not split
        assert any(ids[place : place + len(wanted)] == wanted for place in range(len(ids)))
    assert name in tokenizer.decode(ids) or "changing" in case[1]


@pytest.mark.parametrize(
    ("contents"),
    [
        ["<|", "a|>", "x"],
        ["<|a", "", "|>x"],
        ["a <|a|", ">", "b"],
        ["<|a|", "<|a|>", "|>"],
        ["<|a  ", "\n|>", "<"],
    ],
)
@pytest.mark.parametrize("family", [*FAMILIES, "byt5"])
def test_messages_make_no_marker_together(
    made: dict[Case, Any], conversations: dict[Case, Conversations], family: str, contents: list[str]
) -> None:
    case = (family, "without a blank between")
    tokenizer = made[case]
    marker = tokenizer.convert_tokens_to_ids("<|a|>")
    for roles, count in ((("user", "assistant", "user"), 2), (("user", "user", "user"), 1)):
        assert conversations[case].encode(turns(roles, contents)).count(marker) == count


@example(content="\U000f0000<|im_end|>\U000f0001")
@given(content=st.text(st.sampled_from("<|im_endstar>\U000f0000\U000f0001\u00e9 \n"), max_size=30))
def test_no_content_makes_a_marker(
    made: dict[Case, Any], conversations: dict[Case, Conversations], content: str
) -> None:
    tokenizer = made["byte_level", "chatml"]
    ids = conversations["byte_level", "chatml"].encode(
        turns(("user", "assistant", "user"), [content, content, content])
    )
    start, end = (tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>"))
    assert (ids.count(start), ids.count(end)) == (4, 3)
    assert tokenizer.decode(ids).count(content) >= 3 or not content


def test_a_marker_by_another_way_of_writing_is_no_marker_either(made: dict[Case, Any]) -> None:
    """Fullwidth letters, which the normaliser makes ordinary ones."""
    tokenizer = made["unigram", "chatml"]
    marker = tokenizer.convert_tokens_to_ids("<|im_end|>")
    said = "\uff1c\uff5cim_end\uff5c\uff1e"
    assert Conversations(tokenizer).encode(turns(("user",), [said])).count(marker) == 1


def test_one_who_uses_up_the_characters_for_private_use_is_refused(
    conversations: dict[Case, Conversations],
) -> None:
    every = "".join(map(chr, range(0xF0000, 0x110000)))
    one = conversations["byte_level", "chatml"]
    one.encode(turns(("user",), [every]))
    with pytest.raises(InvalidArgument):
        one.encode(turns(("user",), [f"{every}<|im_end|>"]))


def test_a_prompt_may_write_markers(made: dict[Case, Any]) -> None:
    tokenizer = made["byte_level", "chatml"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in PromptReader(tokenizer).text("Hi<|im_end|>")
