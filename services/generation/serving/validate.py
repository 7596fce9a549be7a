"""The checks of every public field. They are cheap enough to run before admission. Each violation names its field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshgate.errors import FieldViolation, InvalidArgument
from meshgate.numerals import written
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import priority_pb2
from services.common import checks
from services.generation.engine.interface import Priority, Sampling
from services.generation.serving import limits as bound
from services.generation.serving.limits import Limits
from services.generation.text.text_reader import TokenisedInput

Request = pb.GenerateRequest | pb.CountTokensRequest

DEFAULT_TEMPERATURE: Final = 1.0

_ROLES = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
_PRIORITIES = {
    priority_pb2.PRIORITY_UNSPECIFIED: Priority.INTERACTIVE,
    priority_pb2.PRIORITY_INTERACTIVE: Priority.INTERACTIVE,
    priority_pb2.PRIORITY_BATCH: Priority.BATCH,
}


def check_model(name: str, limits: Limits) -> None:
    """Raises InvalidArgument for too long a name, NotFound (MODEL_NOT_FOUND) for an unknown one."""
    _size("model", name, 0, bound.NAME_BYTES)
    if not limits.answers_to(name):
        raise checks.no_model(name)


def check_input(request: Request, limits: Limits) -> None:
    """Raises InvalidArgument unless exactly one input is set and in range."""
    match request.WhichOneof("input"):
        case "prompt":
            _size("prompt", request.prompt, 1, bound.TEXT_BYTES)
        case "token_ids":
            _check_token_ids(request.token_ids.ids, limits)
        case "conversation":
            turns(request.conversation)
        case _:
            raise InvalidArgument.of("input", "one of prompt, token_ids and conversation is required")


def check_adapter(request: pb.GenerateRequest) -> None:
    """Raises InvalidArgument for too long a name. Whether the adapter exists is checked on disk later."""
    _size("adapter", request.adapter, 0, bound.NAME_BYTES)


def turns(conversation: pb.Conversation) -> list[dict[str, str]]:
    """The conversation as chat templates take it. Raises InvalidArgument, naming the message."""
    messages = conversation.messages
    _range("conversation.messages", len(messages), 1, bound.MESSAGES, "turns")
    if messages[-1].role != pb.ROLE_USER:
        raise InvalidArgument.of(
            f"conversation.messages[{len(messages) - 1}].role", "the last message must be the user's"
        )
    return [_turn(message, index) for index, message in enumerate(messages)]


def sampling(message: pb.Sampling, limits: Limits) -> Sampling:
    """The sampling parameters with defaults filled in. Raises InvalidArgument."""
    chosen = Sampling(
        temperature=message.temperature if message.HasField("temperature") else DEFAULT_TEMPERATURE,
        top_p=message.top_p if message.HasField("top_p") else 1.0,
        top_k=message.top_k if message.HasField("top_k") else None,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else 1.0,
        seed=message.seed if message.HasField("seed") else None,
    )
    _range("sampling.temperature", chosen.temperature, 0, 2)
    _above("sampling.top_p", chosen.top_p, 1)
    if chosen.top_k is not None:
        _range("sampling.top_k", chosen.top_k, 1, limits.vocabulary_size)
    _range("sampling.min_p", chosen.min_p, 0, 1)
    _above("sampling.repetition_penalty", chosen.repetition_penalty, 10)
    return chosen


def max_output_tokens(request: pb.GenerateRequest, limits: Limits) -> int:
    """The most tokens of a candidate. Raises InvalidArgument."""
    if not request.HasField("max_output_tokens"):
        return min(bound.DEFAULT_OUTPUT_TOKENS, limits.max_output_tokens)
    _range("max_output_tokens", request.max_output_tokens, 1, limits.max_output_tokens, "tokens")
    return request.max_output_tokens


def candidate_count(request: pb.GenerateRequest, limits: Limits) -> int:
    """The number of candidates. Raises InvalidArgument."""
    if not request.HasField("candidate_count"):
        return 1
    _range("candidate_count", request.candidate_count, 1, limits.max_candidates)
    return request.candidate_count


def stop(request: pb.GenerateRequest) -> tuple[str, ...]:
    """The stop sequences. Raises InvalidArgument."""
    _range("stop", len(request.stop), 0, bound.STOPS, "sequences")
    for index, sequence in enumerate(request.stop):
        _size(f"stop[{index}]", sequence, 1, bound.STOP_BYTES)
    return tuple(request.stop)


def logprobs(request: pb.GenerateRequest) -> int | None:
    """How many alternatives to report for each token; None reports nothing. Raises InvalidArgument."""
    if not request.HasField("logprobs"):
        return None
    _range("logprobs", request.logprobs, 0, bound.LOGPROBS, "alternatives")
    return request.logprobs


def priority(request: pb.GenerateRequest) -> Priority:
    """Interactive or batch. Raises InvalidArgument."""
    found = _PRIORITIES.get(request.priority)
    if found is None:
        raise InvalidArgument.of("priority", "not a known priority")
    return found


def most_tokens(limits: Limits, token_cap: int | None) -> int:
    """The longest input that `check_prompt_length` accepts, in tokens."""
    bounds = (limits.context - 1, limits.source, token_cap)
    return min(bound for bound in bounds if bound is not None)


def check_counted(read: TokenisedInput, token_cap: int | None) -> None:
    """Raises InvalidArgument (INPUT_TOO_LONG) where the input has more tokens than the gateway reserved for it."""
    if token_cap is not None and read.tokens > token_cap:
        raise InvalidArgument.of(
            "input", f"more tokens than the {token_cap} that are reserved", reason="INPUT_TOO_LONG"
        )


def check_prompt_length(tokens: int, limits: Limits, token_cap: int | None, *, whole: bool = True) -> None:
    """Raises InvalidArgument (INPUT_TOO_LONG) where the input is too long.

    The context must have room for one token of output. The input alone must fit into the cap that the gateway reserved
    for the call, and into an encoder's source. `whole` is whether the whole input was tokenised; the error says so.
    """
    said = f"{'' if whole else 'at least '}{tokens} tokens are too many"
    if limits.source is not None and tokens > limits.source:
        most = f"{said}: the input may have {limits.source}"
        raise InvalidArgument.of("input", most, reason="INPUT_TOO_LONG")
    if tokens >= limits.context:
        most = f"{said}: input and output together have {limits.context}"
        raise InvalidArgument.of("input", most, reason="INPUT_TOO_LONG")
    if token_cap is not None and tokens > token_cap:
        most = f"{said}: {token_cap} are reserved for input and output"
        raise InvalidArgument.of("input", most, reason="INPUT_TOO_LONG")


def within(prefix: str, error: InvalidArgument) -> InvalidArgument:
    """The same error, with `prefix` before each field: the fields of a message inside the request."""
    violations = tuple(FieldViolation(f"{prefix}.{each.field}", each.description) for each in error.violations)
    return InvalidArgument(f"{prefix}.{error.message}", reason=error.reason, violations=violations)


def _turn(message: pb.Message, index: int) -> dict[str, str]:
    field = f"conversation.messages[{index}]"
    if message.role not in _ROLES:
        raise InvalidArgument.of(f"{field}.role", "ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT is required")
    if message.role == pb.ROLE_SYSTEM and index > 0:
        raise InvalidArgument.of(f"{field}.role", "only the first message may be the system's")
    _size(f"{field}.content", message.content, 1, bound.TEXT_BYTES)
    return {"role": _ROLES[message.role], "content": message.content}


def _check_token_ids(ids: Sequence[int], limits: Limits) -> None:
    if not ids:
        raise InvalidArgument.of("token_ids.ids", "at least 1 token is required")
    if max(ids) >= limits.vocabulary_size:
        raise InvalidArgument.of("token_ids.ids", f"each must be from 0 to {written(limits.vocabulary_size - 1)}")


def _size(field: str, text: str, low: int, high: int) -> None:
    _range(field, len(text.encode()), low, high, "bytes")


def _range(field: str, value: float, low: int, high: int, unit: str = "") -> None:
    if not low <= value <= high:  # written like this, a NaN is out of range
        raise InvalidArgument.of(field, f"must be from {written(low)} to {written(high)} {unit}".rstrip())


def _above(field: str, value: float, high: int) -> None:
    if not 0 < value <= high:
        raise InvalidArgument.of(field, f"must be greater than 0 and at most {written(high)}")
