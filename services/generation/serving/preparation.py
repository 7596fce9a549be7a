"""The preparation of a request: everything between its arrival and the engine, in one place and in order.

`prepare` validates the request, waits for slots, renders and tokenises the input, compiles the constraint, finds the
adapter, and waits for room for the prompt's tokens. What comes out is a `Submission`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from meshgate.errors import InvalidArgument, Unimplemented
from meshgate.rpc.call import hop_deadline
from meshgate.v1 import generation_pb2 as pb
from services.common.caller import Caller, caller_of, model_of
from services.generation import constraints
from services.generation.constraints import Constraint
from services.generation.engine.interface import Adapter, Grammar, Job
from services.generation.serving import validate
from services.generation.serving.limits import Limits
from services.generation.serving.served_model import ServedModel, ServedModels
from services.generation.text.text_reader import TokenisedInput
from services.text.pieces import PIECE
from services.text.preparing import PreparedText, at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshgate.rpc.guard import Context

_LATE_STEP_SHARE: Final = 0.25
"""The part of the reserved return time for which the answer waits for a late step."""
_COMPILE_COST: Final = 32
"""The cost to compile one byte of a constraint, in tokenised characters."""
_MESSAGE_OVERHEAD: Final = 64
"""Bytes that a conversation's message counts for besides its content."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A prepared request: the model that serves it, the job for its engine, and when its answer must leave."""

    model: ServedModel
    job: Job
    answer_by: float | None
    """When the answer must leave although a step still runs, on the event loop's clock."""


@asynccontextmanager
async def prepare(
    models: ServedModels, request: pb.GenerateRequest, context: Context, *, stream: bool, inside: str = ""
) -> AsyncIterator[Submission]:
    """Prepares a request, and holds its slots for the block.

    A unary call for which there is no slot is refused at once; a `stream` waits. `inside` is the field that holds the
    request, for the violations' paths. Raises InvalidArgument, NotFound, Unimplemented, Unavailable (OVERLOADED,
    DRAINING) or DeadlineExceeded.
    """
    model = find_model(models, request, context, inside)
    with _fields_within(inside):
        options = _options(request, model.limits)
        constraint = constraints.read(request.constraint)
    caller, deadline = caller_of(context), _Deadline(context.time_remaining())
    admission, count = model.admission, options["candidates"]
    async with admission.slots(caller.tenant, count, wait=stream, remaining=deadline.remaining()):
        reading = PreparedText(model.tokenising, caller.who, stream)
        with _fields_within(inside):
            prompt = await _prompt(request, model, reading, caller)
            grammar = await _grammar(constraint, model, reading)
            adapter = await _adapter(request.adapter, model, caller, deadline)
        async with admission.prompt(caller.tenant, len(prompt.ids), wait=stream, remaining=deadline.remaining()):
            job = Job(
                prompt=prompt.ids,
                token_cap=caller.token_cap,
                deadline=deadline.work_ends,
                grammar=grammar,
                tenant=caller.tenant,
                adapter=adapter,
                **options,
            )
            yield Submission(model, job, deadline.answer_by())


def find_model(models: ServedModels, request: validate.Request, context: Context, inside: str = "") -> ServedModel:
    """Finds the model of a request, and writes its name into the request. The gateway's choice wins over the request's.

    Raises NotFound, or InvalidArgument for a name in the field `inside`.
    """
    with _fields_within(inside):
        model = models.get().find(model_of(context) or request.model)
    request.model = model.limits.name
    return model


async def tokenise(
    request: validate.Request, model: ServedModel, reading: PreparedText, most: int | None, *, keep: bool = True
) -> TokenisedInput:
    """Tokenises the input, up to `most` tokens. Without `keep` the tokens are only counted."""
    prompts = model.prompts
    match request.WhichOneof("input"):
        case "prompt":
            size = len(request.prompt.encode())
            steps = prompts.text_steps(request.prompt, most, keep=keep)
            return await reading.run(steps, size, min(size, PIECE))
        case "conversation":
            turns = validate.turns(request.conversation)
            size = sum(len(turn["content"].encode()) + _MESSAGE_OVERHEAD for turn in turns)
            return await reading.run(prompts.conversation_steps(turns, most, keep=keep), size, min(size, PIECE))
    ids = list(request.token_ids.ids)
    return TokenisedInput(ids, len(ids))


class _Deadline:
    """The deadline of a call, less the time that its answer needs for the way back."""

    def __init__(self, remaining: float | None) -> None:
        """`remaining` is in seconds; None where the caller set no deadline."""
        self._reserved = 0.0 if remaining is None else hop_deadline.reserved_for_return(remaining)
        self.work_ends: float | None = None if remaining is None else time.monotonic() + remaining - self._reserved
        """On time.monotonic()'s clock."""

    def remaining(self) -> float | None:
        """Seconds until work must end; None without a deadline."""
        return None if self.work_ends is None else self.work_ends - time.monotonic()

    def answer_by(self) -> float | None:
        """When the answer must leave although a step still runs, on the event loop's clock."""
        remaining = self.remaining()
        if remaining is None:
            return None
        return asyncio.get_running_loop().time() + remaining + _LATE_STEP_SHARE * self._reserved


async def _prompt(
    request: pb.GenerateRequest, model: ServedModel, reading: PreparedText, caller: Caller
) -> TokenisedInput:
    """Tokenises the input. Raises InvalidArgument when it has too many tokens."""
    read = await tokenise(request, model, reading, validate.most_tokens(model.limits, caller.token_cap))
    validate.check_prompt_length(read.tokens, model.limits, caller.token_cap, whole=read.whole)
    return read


async def _grammar(constraint: Constraint | None, model: ServedModel, reading: PreparedText) -> Grammar | None:
    """Compiles the constraint. Raises InvalidArgument for one that can't be followed."""
    if constraint is None:
        return None
    if model.grammars is None:
        raise Unimplemented("constraint: not available with this model", reason="FEATURE_UNAVAILABLE")
    work = partial(model.grammars.compile, constraint)
    return await reading.run(at_once(work), constraint.size, _COMPILE_COST * constraint.size)


async def _adapter(name: str, model: ServedModel, caller: Caller, deadline: _Deadline) -> Adapter | None:
    """Finds the adapter. Raises NotFound for one that is not the caller's, and what `LoadedAdapters.find` raises."""
    if not name:
        return None
    if model.adapters is None:
        raise Unimplemented("adapter: not available with this model", reason="FEATURE_UNAVAILABLE")
    return await model.adapters.find(caller.tenant, name, deadline.remaining())


@contextmanager
def _fields_within(inside: str) -> Iterator[None]:
    """Puts `inside` before the fields of a violation, where the request is a field of another message."""
    try:
        yield
    except InvalidArgument as error:
        raise (validate.within(inside, error) if inside else error) from None


def _options(request: pb.GenerateRequest, limits: Limits) -> dict[str, Any]:
    """The fields of a Job that need only the request. Raises InvalidArgument or NotFound."""
    validate.check_model(request.model, limits)
    validate.check_input(request, limits)
    validate.check_adapter(request)
    return {
        "max_output_tokens": validate.max_output_tokens(request, limits),
        "sampling": validate.sampling(request.sampling, limits),
        "candidates": validate.candidate_count(request, limits),
        "stop": validate.stop(request),
        "logprobs": validate.logprobs(request),
        "priority": validate.priority(request),
        "penalise_prompt": limits.source is None,
    }
