"""meshgate.v1.GenerationService: check, take a permit, tokenise, run, and say what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from meshgate.errors import DeadlineExceeded, InvalidArgument, Unimplemented
from meshgate.rpc import metadata
from meshgate.rpc.call import hop_deadline
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc
from services.common.caller import caller_of, model_of
from services.generation import constraints
from services.generation.engine.interface import Adapter, Grammar, Job, Ticket
from services.generation.engine.output_stream import OutputStream
from services.generation.serving import proto_mapping, validate
from services.generation.serving.limits import Limits
from services.generation.serving.refusal_counter import RefusalCounter
from services.generation.serving.served_model import ServedModel, ServedModels
from services.generation.text.text_reader import TokenisedInput
from services.text.pieces import PIECE
from services.text.preparing import PreparedText, at_once

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context


_PATIENCE = 0.25
"""The part of what a hop keeps for which a step that is late is waited for."""


_COMPILING = 32
"""What a byte of a constraint costs to compile, in characters that are tokenised meanwhile."""
_TURN = 64
"""Bytes that a turn counts for besides its own."""


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Serves the models. Raises kinds of MeshError; the guard makes them statuses."""

    def __init__(self, place: ServedModels, refusals: RefusalCounter | None = None) -> None:
        """Calls that are not let in are counted in `refusals`."""
        self._place = place
        self._refusals = refusals or RefusalCounter()

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Every candidate whole."""
        with self._refusals.counted() as door:
            served = self._find(request, context)
            call = _Call(request, served.limits, context)
            whole = [proto_mapping.CandidateBuilder(index) for index in range(call.candidates)]
            async with _running(served, call, wait=False) as running:
                door.enter()
                async for deltas in running.outputs:
                    for delta in deltas:
                        whole[delta.candidate].add(delta)
        running.report(call, context)
        return pb.GenerateResponse(
            candidates=[each.candidate() for each in whole], usage=running.usage(), model=served.limits.name
        )

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: Context
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Deltas as they are made; usage in the last message."""
        with self._refusals.counted() as door:
            if not request.HasField("request"):
                raise InvalidArgument.of("request", "is required")
            served = self._find(request.request, context, inside="request")
            call = _Call(request.request, served.limits, context, inside="request")
            model = served.limits.name
            async with _running(served, call, wait=True) as running:
                door.enter()
                async for deltas in running.outputs:
                    usage = running.usage() if running.outputs.ended else None
                    if usage is not None:
                        running.report(call, context)
                    yield pb.GenerateStreamResponse(deltas=map(proto_mapping.delta, deltas), usage=usage, model=model)
                    model = ""

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """How long an input is, template included. An input longer than the model takes is counted as well."""
        with self._refusals.counted():
            served, caller = self._find(request, context), caller_of(context)
            validate.check_input(request, served.limits)
            reading = PreparedText(served.tokenising, caller.who)
            read = await _read(request, served, reading, caller.token_cap, keep=False)
            validate.check_counted(read, caller.token_cap)
        metadata.report_usage(context, read.tokens)
        return pb.CountTokensResponse(input_tokens=read.tokens, model=served.limits.name)

    def _find(self, request: validate.Request, context: Context, inside: str = "") -> ServedModel:
        """The model that a request is for: the gateway's word counts before its own. It is named in the request from
        here on. Raises NotFound, or InvalidArgument for a name in the field `inside`.
        """
        try:
            served = self._place.get().find(model_of(context) or request.model)
        except InvalidArgument as error:
            raise validate.within(inside, error) if inside else error from None
        request.model = served.limits.name
        return served


@dataclass(frozen=True, slots=True)
class _Running:
    """A call in the engine."""

    outputs: OutputStream
    input_tokens: int
    ticket: Ticket

    def usage(self) -> pb.GenerationUsage:
        """What it took so far."""
        return pb.GenerationUsage(
            input_tokens=self.input_tokens,
            cached_input_tokens=self.ticket.cached,
            output_tokens=self.outputs.output_tokens,
        )

    def report(self, call: _Call, context: Context) -> None:
        """Puts the usage of an ended call into its trailers. Raises DeadlineExceeded when it made nothing in time."""
        call.check_answered(self.outputs)
        metadata.report_usage(context, self.input_tokens, self.outputs.output_tokens)


@asynccontextmanager
async def _running(served: ServedModel, call: _Call, *, wait: bool) -> AsyncIterator[_Running]:
    """The call in the engine for as long as somebody listens. Its place first, then its tokens, then the queue; a
    stream waits for both.
    """
    entrance, tenant = served.admission, call.tenant
    async with entrance.places(tenant, call.candidates, wait=wait, remaining=call.remaining()):
        reading = PreparedText(served.tokenising, call.who, wait)
        prompt = await call.prompt(served, reading)
        grammar = await call.grammar(served, reading)
        adapter = await call.adapter(served)
        async with entrance.prompt(tenant, len(prompt), wait=wait, remaining=call.remaining()):
            outputs = OutputStream(call.candidates, whole=not wait, until=call.until())
            ticket = served.engine.submit(call.job(prompt, grammar, adapter), outputs)
            try:
                yield _Running(outputs, len(prompt), ticket)
            finally:
                ticket.cancel()
                outputs.close()


class _Call:
    """A checked request and what came beside it."""

    def __init__(self, request: pb.GenerateRequest, limits: Limits, context: Context, inside: str = "") -> None:
        """Raises InvalidArgument, NotFound or Unimplemented. `inside` is the field that holds the request, if any."""
        self.request = request
        self._inside = inside
        try:
            self._options = _options(request, limits)
            self._constraint = constraints.read(request.constraint)
        except InvalidArgument as error:
            raise self.located(error) from None
        self.candidates = self._options["candidates"]
        caller = caller_of(context)
        self.tenant, self.token_cap, self.who = caller.tenant, caller.token_cap, caller.who
        remaining = context.time_remaining()
        self._kept = 0.0 if remaining is None else hop_deadline.reserved_for_return(remaining)
        self._deadline: float | None = None if remaining is None else time.monotonic() + remaining - self._kept

    def remaining(self) -> float | None:
        """Seconds until work must end, if it must."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def until(self) -> float | None:
        """When an answer has to leave though a step goes on, on the event loop's clock."""
        if self._deadline is None:
            return None
        return asyncio.get_running_loop().time() + self._deadline - time.monotonic() + _PATIENCE * self._kept

    async def prompt(self, served: ServedModel, reading: PreparedText) -> Sequence[int]:
        """The input's tokens. Raises InvalidArgument when they are too many."""
        try:
            most = validate.most_tokens(served.limits, self.token_cap)
            read = await _read(self.request, served, reading, most)
            validate.check_prompt_length(read.tokens, served.limits, self.token_cap, whole=read.whole)
        except InvalidArgument as error:
            raise self.located(error) from None
        return read.ids

    async def grammar(self, served: ServedModel, reading: PreparedText) -> Grammar | None:
        """What the output must match. Raises InvalidArgument for what can't be followed."""
        if self._constraint is None:
            return None
        if served.grammars is None:
            raise Unimplemented("constraint: not available with this model", reason="FEATURE_UNAVAILABLE")
        try:
            size = self._constraint.size
            work = partial(served.grammars.compile, self._constraint)
            return await reading.run(at_once(work), size, _COMPILING * size)
        except InvalidArgument as error:
            raise self.located(error) from None

    async def adapter(self, served: ServedModel) -> Adapter | None:
        """What changes the model. Raises NotFound for what is not the caller's, and what `Adapters.find` raises."""
        if not self.request.adapter:
            return None
        if served.adapters is None:
            raise Unimplemented("adapter: not available with this model", reason="FEATURE_UNAVAILABLE")
        try:
            return await served.adapters.find(self.tenant, self.request.adapter, self.remaining())
        except InvalidArgument as error:
            raise self.located(error) from None

    def job(self, prompt: Sequence[int], grammar: Grammar | None, adapter: Adapter | None) -> Job:
        """The call as the engine takes it."""
        return Job(
            prompt=prompt,
            token_cap=self.token_cap,
            deadline=self._deadline,
            grammar=grammar,
            tenant=self.tenant,
            adapter=adapter,
            **self._options,
        )

    def located(self, error: InvalidArgument) -> InvalidArgument:
        """A violation with its place in what the caller sent."""
        return validate.within(self._inside, error) if self._inside else error

    def check_answered(self, outputs: OutputStream) -> None:
        """Raises DeadlineExceeded when the time was up before anything was made."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if late and not outputs.output_tokens:
            raise DeadlineExceeded("the deadline passed before the first token")


async def _read(
    request: validate.Request, served: ServedModel, reading: PreparedText, most: int | None, *, keep: bool = True
) -> TokenisedInput:
    """The input's tokens, as far as `most`; where nobody keeps them, they are counted."""
    prompts = served.prompts
    match request.WhichOneof("input"):
        case "prompt":
            size = len(request.prompt.encode())
            steps = prompts.text_steps(request.prompt, most, keep=keep)
            return await reading.run(steps, size, min(size, PIECE))
        case "conversation":
            turns = validate.turns(request.conversation)
            size = sum(len(turn["content"].encode()) + _TURN for turn in turns)
            return await reading.run(prompts.conversation_steps(turns, most, keep=keep), size, min(size, PIECE))
    ids = list(request.token_ids.ids)
    return TokenisedInput(ids, len(ids))


def _options(request: pb.GenerateRequest, limits: Limits) -> dict[str, Any]:
    """What a Job takes besides its prompt. Raises InvalidArgument or NotFound."""
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
