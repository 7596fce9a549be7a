"""Every public field has a range, and its violation names it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from meshgate.errors import InvalidArgument, NotFound, Unavailable
from meshgate.rpc import metadata
from meshgate.v1 import generation_pb2 as pb
from services.generation.engine.interface import Priority, Sampling
from services.generation.serving import validate
from services.generation.serving.limits import Limits
from services.generation.serving.weighted_semaphore import WeightedSemaphore

LIMITS = Limits("tiny", ("small",), context=256, max_output_tokens=200, max_candidates=8, vocabulary_size=320)
USER = {"role": pb.ROLE_USER, "content": "hi"}
SYSTEM = {"role": pb.ROLE_SYSTEM, "content": "be brief"}


def check(request: pb.GenerateRequest) -> None:
    """All checks, as the servicer does them."""
    validate.check_model(request.model, LIMITS)
    validate.check_input(request, LIMITS)
    validate.check_adapter(request)
    validate.max_output_tokens(request, LIMITS)
    validate.sampling(request.sampling, LIMITS)
    validate.candidate_count(request, LIMITS)
    validate.stop(request)
    validate.logprobs(request)
    validate.priority(request)


def asks(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(**({"prompt": "hi"} | fields))


def turns(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": None, "conversation": {"messages": messages}}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": None}, "input"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 1_048_577}, "prompt"),
        ({"prompt": "我" * 349_526}, "prompt"),
        ({"prompt": None, "token_ids": {}}, "token_ids.ids"),
        ({"prompt": None, "token_ids": {"ids": [3, 320]}}, "token_ids.ids"),
        (turns(), "conversation.messages"),
        (turns(*[USER] * 1025), "conversation.messages"),
        (turns({"content": "hi"}, USER), "conversation.messages[0].role"),
        (turns({"role": 9, "content": "hi"}, USER), "conversation.messages[0].role"),
        (turns(USER, SYSTEM, USER), "conversation.messages[1].role"),
        (turns(USER, {"role": pb.ROLE_ASSISTANT, "content": "hi"}), "conversation.messages[1].role"),
        (turns({"role": pb.ROLE_USER, "content": ""}), "conversation.messages[0].content"),
        ({"model": "x" * 257}, "model"),
        ({"adapter": "x" * 257}, "adapter"),
        ({"sampling": {"temperature": -0.1}}, "sampling.temperature"),
        ({"sampling": {"temperature": 2.1}}, "sampling.temperature"),
        ({"sampling": {"temperature": math.nan}}, "sampling.temperature"),
        ({"sampling": {"top_p": 0.0}}, "sampling.top_p"),
        ({"sampling": {"top_p": 1.1}}, "sampling.top_p"),
        ({"sampling": {"top_k": 0}}, "sampling.top_k"),
        ({"sampling": {"top_k": 321}}, "sampling.top_k"),
        ({"sampling": {"min_p": -0.1}}, "sampling.min_p"),
        ({"sampling": {"min_p": 1.1}}, "sampling.min_p"),
        ({"sampling": {"repetition_penalty": 0.0}}, "sampling.repetition_penalty"),
        ({"sampling": {"repetition_penalty": math.inf}}, "sampling.repetition_penalty"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 201}, "max_output_tokens"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["x" * 257]}, "stop[0]"),
        ({"candidate_count": 0}, "candidate_count"),
        ({"candidate_count": 9}, "candidate_count"),
        ({"logprobs": 21}, "logprobs"),
        ({"priority": 7}, "priority"),
    ],
)
def test_out_of_range(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(asks(**fields))
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x" * 1_048_576},
        {"prompt": None, "token_ids": {"ids": [0, 319]}},
        turns(SYSTEM, USER, {"role": pb.ROLE_ASSISTANT, "content": "x"}, USER),
        {"sampling": {"temperature": 2.0, "top_p": 1.0, "top_k": 320, "min_p": 1.0, "repetition_penalty": 10.0}},
        {"sampling": {"seed": 2**64 - 1}},
        {"max_output_tokens": 200, "candidate_count": 8, "logprobs": 20, "stop": ["x" * 256] * 16},
        {"model": "small"},
        {"adapter": "x" * 256},
        {"constraint": {}},
    ],
)
def test_the_bounds_themselves_are_in_range(fields: dict[str, Any]) -> None:
    check(asks(**fields))


def test_defaults() -> None:
    assert validate.sampling(pb.Sampling(), LIMITS) == Sampling(1.0, 1.0, None, 0.0, 1.0, None)
    assert validate.max_output_tokens(asks(), LIMITS) == 200
    assert validate.candidate_count(asks(), LIMITS) == 1
    assert validate.logprobs(asks()) is None
    assert validate.logprobs(asks(logprobs=0)) == 0
    assert validate.priority(asks()) is Priority.INTERACTIVE


@pytest.mark.parametrize("name", ["other", "\x1b[2J\x1b[H", "a\nb", "\u202ebob", "é", "a" * 256])
def test_an_unknown_model_is_not_found_and_named(name: str) -> None:
    with pytest.raises(NotFound) as refused:
        check(asks(model=name))
    assert refused.value.reason == "MODEL_NOT_FOUND"
    assert refused.value.message == f"no such model: {name!r}" and refused.value.message.isprintable()


@pytest.mark.parametrize(("tokens", "cap"), [(256, None), (10, 9)])
def test_an_input_that_leaves_no_room(tokens: int, cap: int | None) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate.check_prompt_length(tokens, LIMITS, cap)
    assert refused.value.reason == "INPUT_TOO_LONG"


@pytest.mark.parametrize(("tokens", "cap"), [(255, None), (10, 10)])
def test_an_input_that_just_fits(tokens: int, cap: int | None) -> None:
    validate.check_prompt_length(tokens, LIMITS, cap)


def test_a_violation_inside_another_message_says_where() -> None:
    moved = validate.within("request", InvalidArgument.of("sampling.top_p", "above 0, to 1", reason="R"))
    assert [violation.field for violation in moved.violations] == ["request.sampling.top_p"]
    assert moved.reason == "R"


def test_the_token_cap_comes_from_metadata() -> None:
    assert metadata.token_cap_of(((metadata.TOKEN_CAP, "120"),)) == 120
    assert metadata.token_cap_of(None) is None


@pytest.mark.parametrize("value", ["", "-1", "1e3", "٣", "9" * 30, b"12"])
def test_a_cap_that_is_no_number_is_refused_and_not_ignored(value: str | bytes) -> None:
    with pytest.raises(InvalidArgument):
        metadata.token_cap_of(((metadata.TOKEN_CAP, value),))


def test_permits_are_given_back_whatever_happens() -> None:
    permits = WeightedSemaphore(3)
    with pytest.raises(ZeroDivisionError), permits.take(2):
        with pytest.raises(Unavailable) as refused, permits.take(2):
            raise AssertionError
        assert (refused.value.reason, refused.value.retry_after) == ("OVERLOADED", 1.0)
        raise ZeroDivisionError
    assert permits.free == 3
