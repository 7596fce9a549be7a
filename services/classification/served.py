"""What a checked request goes through: tokenise, pay, queue, and score what comes back."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from meshgate.errors import InvalidArgument, Unimplemented
from meshgate.v1 import classification_pb2 as pb
from meshgate.v1 import models_pb2
from services.batching import Batcher, Permit
from services.classification import validate
from services.classification.custom.tenant_classifiers import TenantClassifiers
from services.classification.custom.training import Trainer
from services.classification.model import entailment, offsets, scores, spans
from services.classification.model.entailment import Pairs
from services.classification.model.offsets import Located
from services.classification.model_proxy import Item, Scores, ZeroShotProxy
from services.classification.validate import Models, Plan
from services.common.checks import TokenBudget
from services.text.preparing import PreparationQueue, PreparedText, at_once
from services.text.tokens import Cut, Tokens

_REMEMBERED_LABELS: Final = 4096

Remaining = Callable[[], float | None]
"""How many seconds a caller has yet."""


class _Labels(NamedTuple):
    """The labels of a call: vector and number of tokens of those seen lately, and the others as read."""

    known: dict[str, tuple[Scores, int]]
    fresh: dict[str, Tokens]

    def tokens(self, plan: Plan) -> int:
        """What they are charged, known or not: who asked before is no business of who asks now."""
        return sum(self.known[text][1] if text in self.known else self.fresh[text].length for text in plan.descriptions)


class Custom(NamedTuple):
    """The classifiers of the tenants' own."""

    owned: TenantClassifiers
    trainer: Trainer


class Served:
    """The loaded models and what stands before them."""

    def __init__(
        self,
        models: Models,
        batcher: Batcher[Item, Scores],
        cards: Sequence[models_pb2.Model],
        custom: Custom | None = None,
        preparing: PreparationQueue | None = None,
    ) -> None:
        self.preparing = preparing or PreparationQueue()
        self.models = models
        self.batcher = batcher
        self.cards = cards
        self._custom = custom
        self._labels: OrderedDict[str, tuple[Scores, int]] = OrderedDict()

    @property
    def custom(self) -> Custom:
        """Raises Unimplemented (TRAINING_OFF) where there is none."""
        if self._custom is None:
            raise Unimplemented("this deployment trains no classifiers", reason="TRAINING_OFF")
        return self._custom

    async def plan(self, request: pb.ClassifyRequest, tenant: str, *, bulk: bool = False) -> Plan:
        """Checks a request of a tenant, and finds its model. Raises what `validate.plan` and `Owned.find` raise."""
        if self._custom is None or self.models.has(request.model):
            return validate.plan(request, self.models, bulk=bulk)
        return validate.plan(request, self.models, await self._custom.owned.find(tenant, request.model), bulk=bulk)

    async def classify(
        self, plan: Plan, purse: TokenBudget, permit: Permit[Item, Scores], remaining: Remaining = lambda: None
    ) -> pb.ClassifyResponse:
        """Runs a checked request that has its place. Raises InvalidArgument for one that is too long, or more than was
        reserved. A stream says nothing of what remains: what it waits for is not lost.
        """
        reading = PreparedText(self.preparing, permit.who, permit.waits)
        if isinstance(plan.model, ZeroShotProxy) and plan.model.entails:
            return await self._judged(plan, purse, permit, remaining, reading)
        reader = plan.model.tokeniser
        if plan.pairs:
            tokens = await reader.encode_pairs(plan.texts, plan.pairs, plan.cut, "inputs", reading)
        else:
            tokens = await reader.encode(plan.texts, plan.cut, "inputs", reading)
        labels = await self._labels_of(plan, reading)
        taken = sum(each.length for each in tokens) + labels.tokens(plan)
        purse.take(taken)
        rows = await _run(plan, tokens, permit, remaining)
        matrix = await self._label_matrix(labels, plan, permit, remaining) if plan.descriptions else None
        results = await asyncio.to_thread(_results, rows, tokens, plan, matrix)
        return pb.ClassifyResponse(results=results, usage=pb.ClassifyUsage(input_tokens=taken), model=plan.name)

    async def _judged(
        self, plan: Plan, purse: TokenBudget, permit: Permit[Item, Scores], remaining: Remaining, reading: PreparedText
    ) -> pb.ClassifyResponse:
        """Zero-shot by a classifier of entailment."""
        read = at_once(partial(Pairs, plan.model.tokeniser, plan.texts, plan.descriptions, plan.cut))
        every = [*plan.texts, *plan.descriptions]
        pairs = await reading.run(read, sum(len(each.encode()) for each in every), sum(map(len, every)))
        if pairs.tokens > self.models.most_tokens:
            said = f"with each label they are {pairs.tokens} tokens: at most {self.models.most_tokens} are read at once"
            raise InvalidArgument.of("inputs", said, reason="INPUT_TOO_LONG")
        purse.take(pairs.charged)
        tokens = await asyncio.to_thread(list, pairs.each())
        logits = await _run(plan, tokens, permit, remaining)
        results = await asyncio.to_thread(_judgements, logits, tokens, pairs.lengths, plan)
        return pb.ClassifyResponse(results=results, usage=pb.ClassifyUsage(input_tokens=pairs.charged), model=plan.name)

    async def _labels_of(self, plan: Plan, reading: PreparedText) -> _Labels:
        """Reads a plan's labels; those seen lately are known."""
        fresh = [text for text in dict.fromkeys(plan.descriptions) if text not in self._labels]
        known = {text: self._labels[text] for text in plan.descriptions if text in self._labels}
        if not fresh:
            return _Labels(known, {})
        tokens = await plan.model.tokeniser.encode(fresh, Cut.REFUSE, "candidate_labels.labels", reading)
        return _Labels(known, dict(zip(fresh, tokens, strict=True)))

    async def _label_matrix(
        self, labels: _Labels, plan: Plan, permit: Permit[Item, Scores], remaining: Remaining
    ) -> Scores:
        """The labels' vectors [labels, dimensions]; those that are known are not computed again."""
        known = dict(labels.known)
        if labels.fresh:
            vectors = await _run(plan, list(labels.fresh.values()), permit, remaining)
            for (text, each), vector in zip(labels.fresh.items(), vectors, strict=True):
                known[text] = (vector, each.length)
        self._remember(known)
        return np.stack([known[text][0] for text in plan.descriptions])

    def _remember(self, known: dict[str, tuple[Scores, int]]) -> None:
        for text, found in known.items():
            self._labels[text] = found
            self._labels.move_to_end(text)
        while len(self._labels) > _REMEMBERED_LABELS:
            self._labels.popitem(last=False)


async def _run(
    plan: Plan, tokens: Sequence[Tokens], permit: Permit[Item, Scores], remaining: Remaining
) -> list[Scores]:
    items = [Item(plan.model, each) for each in tokens]
    return await permit.run(items, [each.length for each in tokens], yields=plan.yields, remaining=remaining())


def _results(
    rows: Sequence[Scores], tokens: Sequence[Tokens], plan: Plan, matrix: Scores | None
) -> list[pb.Classification]:
    """What the contract returns, of what the model said: logits, or vectors and what they are held against."""
    if plan.head is not None:
        rows = list(plan.head.raw(np.stack(rows)))
    elif matrix is not None and isinstance(plan.model, ZeroShotProxy):
        midpoint = plan.model.midpoint if plan.apart else 0.0
        rows = list(plan.model.scale * (np.stack(rows) @ matrix.T - midpoint))
    return [
        _result(scores.checked(row), each, text, plan) for row, each, text in zip(rows, tokens, plan.texts, strict=True)
    ]


def _result(raw: Scores, tokens: Tokens, text: str, plan: Plan) -> pb.Classification:
    if isinstance(tokens, Located):
        scored = scores.scored(raw, plan.function)
        found = spans.found(scored, offsets.places(tokens, text), plan.labels, plan.grouping)
        return pb.Classification(spans=found, tokens=tokens.length, truncated=tokens.cut)
    return pb.Classification(labels=_ranked(raw, plan), tokens=tokens.length, truncated=tokens.cut)


def _judgements(
    logits: Sequence[Scores], tokens: Sequence[Tokens], lengths: Sequence[int], plan: Plan
) -> list[pb.Classification]:
    """What the contract returns, of what a classifier of entailment said of each text with each label."""
    count, judges = len(plan.labels), plan.model.facts.card.judges
    rows = entailment.raw(list(map(scores.checked, logits)), count, judges, apart=plan.apart) if judges else []
    cuts = [any(each.cut for each in tokens[begin : begin + count]) for begin in range(0, len(tokens), count)]
    return [
        pb.Classification(labels=_ranked(row, plan), tokens=length, truncated=cut)
        for row, length, cut in zip(rows, lengths, cuts, strict=True)
    ]


def _ranked(raw: Scores, plan: Plan) -> list[pb.LabelScore]:
    return scores.ranked(raw, scores.scored(raw, plan.function), plan.labels, plan.top_k)
