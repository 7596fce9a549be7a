"""What the servicer asks of an engine, as plain data. Neither torch nor grpc is known here.

A `Job` is one call: a prompt and how many candidates to make of it. The engine answers through a `Listener`, from a
thread of its own, until each candidate has had a delta with a `Finish`, or the job has failed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from meshgate.errors import MeshError


class FinishReason(enum.Enum):
    """Why a candidate ended."""

    STOP = "stop"
    LENGTH = "length"
    BUDGET = "budget"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a candidate; `stop_matched` is the stop sequence, empty when the model ended by itself."""

    reason: FinishReason
    stop_matched: str = ""


class Priority(enum.Enum):
    """Whose turn it is when several wait."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: the contract's Sampling with its defaults filled in. Temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    """Candidate i uses seed + i, modulo 2^64; None draws a seed from the operating system."""


class Matcher(Protocol):
    """One candidate's way through what its output must match."""

    @property
    def complete(self) -> bool:
        """Whether the output is whole, and nothing more can follow."""

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may follow, [vocabulary]. Raises MeshError where that can't be said."""

    def take(self, token: int) -> None:
        """Goes on by a token that was allowed."""


class Grammar(Protocol):
    """What the output of every candidate must match."""

    def matcher(self) -> Matcher:
        """A new way through it, from its beginning."""


class Adapter(Protocol):
    """A change of the model's weights, loaded."""

    @property
    def serial(self) -> int:
        """What was computed with one adapter is good for another of the same serial, and for no other."""

    @property
    def pairs(self) -> Mapping[str, Any]:
        """What each layer's output changes by, by the layer's name."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call, checked already: `prompt` is not empty and fits the model's context."""

    prompt: Sequence[int]
    max_output_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    candidates: int = 1
    stop: Sequence[str] = ()
    logprobs: int | None = None
    """How many alternatives to report for each token; None reports nothing."""
    token_cap: int | None = None
    """The most tokens, prompt and output of all candidates together, at least the prompt's length."""
    deadline: float | None = None
    """When work ends, on time.monotonic()'s clock."""
    priority: Priority = Priority.INTERACTIVE
    grammar: Grammar | None = None
    penalise_prompt: bool = True
    """Whether the prompt's tokens count as present for a repetition penalty: not where they are another text."""
    tenant: str = ""
    """Whose share of the model it takes; "" where nobody says."""
    adapter: Adapter | None = None
    """The model as this changes it: keys and values of a prompt are good for the same adapter alone."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its bytes and the natural logarithm of its probability."""

    token_id: int
    token: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """One choice and the likeliest tokens there, best first."""

    chosen: TokenLogprob
    alternatives: Sequence[TokenLogprob]


@dataclass(slots=True)
class Delta:
    """What one step adds to one candidate. `text` lags behind `token_ids` while it may be part of a stop sequence."""

    candidate: int
    text: str = ""
    token_ids: Sequence[int] = ()
    finish: Finish | None = None
    logprobs: Sequence[PositionLogprobs] = ()


class Listener(Protocol):
    """Hears of one job, on the engine's thread: hand over and return. After `failed` nothing more comes."""

    def deltas(self, deltas: Sequence[Delta]) -> None:
        """What one step made, at most one delta a candidate."""

    def failed(self, error: MeshError) -> None:
        """The job can't go on."""


class Ticket(Protocol):
    """A submitted job."""

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were known from another of the tenant's; said once something was made."""

    def cancel(self) -> None:
        """Ends the job within a step. Thread-safe, may be called twice, and never blocks."""


class Engine(Protocol):
    """Runs jobs."""

    def submit(self, job: Job, listener: Listener) -> Ticket:
        """Queues a job. Thread-safe. Raises Unavailable when it stops (DRAINING) or has failed (MODEL_FAILED)."""
