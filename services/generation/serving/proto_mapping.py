"""The mapping from the engine's data to the contract's messages."""

from __future__ import annotations

from collections.abc import Sequence

from meshgate.v1 import generation_pb2 as pb
from services.generation.engine.interface import Delta, Finish, FinishReason, PositionLogprobs, TokenLogprob

_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.BUDGET: pb.FINISH_REASON_BUDGET,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
}


def finish(end: Finish | None) -> pb.Finish | None:
    """The reason why a candidate ended; None while it runs."""
    return None if end is None else pb.Finish(reason=_REASONS[end.reason], stop_matched=end.stop_matched)


def logprobs(positions: Sequence[PositionLogprobs]) -> list[pb.PositionLogprobs]:
    """The log-probabilities, one entry for each token."""
    return [
        pb.PositionLogprobs(chosen=_logprob(each.chosen), alternatives=map(_logprob, each.alternatives))
        for each in positions
    ]


def delta(made: Delta) -> pb.CandidateDelta:
    """One delta of a stream."""
    return pb.CandidateDelta(
        index=made.candidate,
        text=made.text,
        token_ids=made.token_ids,
        finish=finish(made.finish),
        logprobs=logprobs(made.logprobs),
    )


class CandidateBuilder:
    """A candidate, built from its deltas."""

    def __init__(self, index: int) -> None:
        self._text: list[str] = []
        self._candidate = pb.Candidate(index=index)

    def add(self, made: Delta) -> None:
        """Appends a delta."""
        self._text.append(made.text)
        self._candidate.token_ids.extend(made.token_ids)
        self._candidate.logprobs.extend(logprobs(made.logprobs))
        self._candidate.MergeFrom(pb.Candidate(finish=finish(made.finish)))

    def candidate(self) -> pb.Candidate:
        """The whole candidate."""
        self._candidate.text = "".join(self._text)
        return self._candidate


def _logprob(each: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(token_id=each.token_id, token=each.token, logprob=each.logprob)
