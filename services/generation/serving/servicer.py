"""meshgate.v1.GenerationService: a request is prepared, submitted to its model's engine, and answered.

Read it top-down: `prepare` (preparation.py) makes a Submission, `EngineThread.submit` hands it to the scheduler, and an
OutputStream brings the deltas back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshgate.errors import DeadlineExceeded, InvalidArgument
from meshgate.rpc import metadata
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc
from services.common.caller import caller_of
from services.generation.engine.interface import Ticket
from services.generation.engine.output_stream import OutputStream
from services.generation.serving import proto_mapping, validate
from services.generation.serving.preparation import Submission, find_model, prepare, tokenise
from services.generation.serving.refusal_counter import RefusalCounter
from services.generation.serving.served_model import ServedModels
from services.text.preparing import PreparedText

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Serves the models. Raises kinds of MeshError, which the guard turns into statuses."""

    def __init__(self, models: ServedModels, refusals: RefusalCounter | None = None) -> None:
        """`refusals` counts the calls that are not admitted."""
        self._models = models
        self._refusals = refusals or RefusalCounter()

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:
        """Answers with every candidate whole."""
        with self._refusals.counted() as mark:
            async with prepare(self._models, request, context, stream=False) as submission:
                with _running(submission, whole=True) as run:
                    mark.admitted()
                    whole = [proto_mapping.CandidateBuilder(index) for index in range(submission.job.candidates)]
                    async for deltas in run.outputs:
                        for delta in deltas:
                            whole[delta.candidate].add(delta)
        run.report(context)
        return pb.GenerateResponse(
            candidates=[each.candidate() for each in whole], usage=run.usage(), model=run.submission.model.limits.name
        )

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: Context
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Answers with deltas as they are generated; the last message has the usage."""
        with self._refusals.counted() as mark:
            if not request.HasField("request"):
                raise InvalidArgument.of("request", "is required")
            async with prepare(self._models, request.request, context, stream=True, inside="request") as submission:
                with _running(submission, whole=False) as run:
                    mark.admitted()
                    model = submission.model.limits.name
                    async for deltas in run.outputs:
                        usage = run.usage() if run.outputs.ended else None
                        if usage is not None:
                            run.report(context)
                        yield pb.GenerateStreamResponse(
                            deltas=map(proto_mapping.delta, deltas), usage=usage, model=model
                        )
                        model = ""

    async def CountTokens(self, request: pb.CountTokensRequest, context: Context) -> pb.CountTokensResponse:
        """Counts the input's tokens, template included. An input longer than the model's context is counted as well."""
        with self._refusals.counted():
            model, caller = find_model(self._models, request, context), caller_of(context)
            validate.check_input(request, model.limits)
            reading = PreparedText(model.tokenising, caller.who)
            read = await tokenise(request, model, reading, caller.token_cap, keep=False)
            validate.check_counted(read, caller.token_cap)
        metadata.report_usage(context, read.tokens)
        return pb.CountTokensResponse(input_tokens=read.tokens, model=model.limits.name)


@dataclass(frozen=True, slots=True)
class _Run:
    """A submission in the engine."""

    submission: Submission
    outputs: OutputStream
    ticket: Ticket

    def usage(self) -> pb.GenerationUsage:
        """The tokens used so far."""
        return pb.GenerationUsage(
            input_tokens=len(self.submission.job.prompt),
            cached_input_tokens=self.ticket.cached,
            output_tokens=self.outputs.output_tokens,
        )

    def report(self, context: Context) -> None:
        """Puts the usage of an ended call into its trailers. Raises DeadlineExceeded when no token came in time."""
        deadline = self.submission.job.deadline
        if deadline is not None and time.monotonic() >= deadline and not self.outputs.output_tokens:
            raise DeadlineExceeded("the deadline passed before the first token")
        metadata.report_usage(context, len(self.submission.job.prompt), self.outputs.output_tokens)


@contextmanager
def _running(submission: Submission, *, whole: bool) -> Iterator[_Run]:
    """The submission in its model's engine, for as long as the caller listens."""
    job = submission.job
    outputs = OutputStream(job.candidates, whole=whole, until=submission.answer_by)
    ticket = submission.model.engine.submit(job, outputs)
    try:
        yield _Run(submission, outputs, ticket)
    finally:
        ticket.cancel()
        outputs.close()
