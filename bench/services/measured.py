"""What is measured: the tables, each with who is in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from bench.rounds import Plan
from bench.services import prompts, starts, tables
from bench.services.contenders import contender, embedders, generators, models
from bench.services.contenders.contender import Start
from bench.services.contenders.generators import Model
from bench.services.contenders.place import Place
from bench.services.rounds import Measurement
from bench.table import Table

_EMBEDDING_CALLERS: Final = 32
_TEXTS: Final = 192
_LENGTHS: Final = (prompts.MIXED, prompts.SENTENCES, prompts.PARAGRAPHS, prompts.PASSAGES)
_CALLERS: Final = (1, 16, 32)
_ENGINE_CALLERS: Final = (1, 8, 16, 32)
_STREAMS: Final = (1, 8, 32)
_INTERRUPTED: Final = 8
_LONG: Final = 1980
"""Words of the long prompt, each a token; with its answer it just fits the context of 2048."""
_NOWHERE: Final = Model("", Path(), None)

Measure = Callable[[Place, Plan, Collection[str], Sequence[str]], AsyncIterator[Table]]

CONTENDERS: Final = tuple(
    dict.fromkeys([*embedders.ALL, *generators.contenders(_NOWHERE), *generators.engines(_NOWHERE)])
)
"""All names of contenders."""


async def measure(place: Place, plan: Plan, wanted: Collection[str], only: Sequence[str]) -> AsyncIterator[Table]:
    """The tables that are wanted, of those contenders alone where any are named."""
    for part in dict.fromkeys(ALL[name] for name in wanted):
        async for table in part(place, plan, wanted, only):
            yield table


async def _embedding(place: Place, plan: Plan, wanted: Collection[str], only: Sequence[str]) -> AsyncIterator[Table]:
    async with _started(place, embedders.ALL, plan, only) as found:
        for lengths in _LENGTHS:
            made = await found.load(prompts.texts(lengths, _TEXTS), _EMBEDDING_CALLERS)
            said = f"{lengths.name} of {lengths.shortest} to {lengths.longest} words"
            title = f"Embeddings, {said}, {_EMBEDDING_CALLERS} callers, one text a call"
            if made:
                yield tables.rates(title, "text", made, found.titles, "meshgate")


async def _generation(place: Place, plan: Plan, wanted: Collection[str], only: Sequence[str]) -> AsyncIterator[Table]:
    for model in _models(place):
        async with _started(place, generators.contenders(model), plan, only) as found:
            parts = {"generation": _rates, "streams": _streams, "interruption": _interruptions}
            for name, part in parts.items():
                if name in wanted:
                    async for table in part(found, model):
                        yield table


async def _engines(place: Place, plan: Plan, wanted: Collection[str], only: Sequence[str]) -> AsyncIterator[Table]:
    for model in _models(place):
        async with _started(place, generators.engines(model), plan, only) as found:
            for callers in _ENGINE_CALLERS:
                made = await found.load(prompts.prompts(), callers)
                if made:
                    title = _title("Engines without a server", model, callers)
                    yield tables.rates(title, "token", made, found.titles, "steps")


async def _starts(place: Place, plan: Plan, wanted: Collection[str], only: Sequence[str]) -> AsyncIterator[Table]:
    servers = {
        "infinity": embedders.ALL["infinity"],
        "mlserver": embedders.ALL["mlserver"],
        "transformers": generators.contenders(models.shipped())["transformers"],
    }
    started = await starts.services(place, plan.rounds)
    started |= await starts.peers(
        place, {name: servers[name] for name in servers if not only or name in only}, plan.rounds
    )
    yield tables.starts("From start to serving", started)


ALL: Final[Mapping[str, Measure]] = {
    "embedding": _embedding,
    "generation": _generation,
    "streams": _generation,
    "interruption": _generation,
    "engines": _engines,
    "starts": _starts,
}
"""Name of a table to what makes it; those that share contenders are made together."""


async def _rates(found: Measurement, model: Model) -> AsyncIterator[Table]:
    for callers in _CALLERS:
        made = await found.load(prompts.prompts(), callers)
        if made:
            yield tables.rates(_title("Generation", model, callers), "token", made, found.titles, "meshgate")


async def _streams(found: Measurement, model: Model) -> AsyncIterator[Table]:
    for callers in _STREAMS:
        heard = await found.streams(prompts.prompts(), callers)
        if heard:
            yield tables.streams(_title("Streams", model, callers), heard, found.titles)


async def _interruptions(found: Measurement, model: Model) -> AsyncIterator[Table]:
    heard = await found.interruptions(prompts.prompts(), _INTERRUPTED, prompts.long_prompts(_LONG))
    if heard:
        title = f"{_INTERRUPTED} streams while a prompt of about 2,000 tokens arrives, {model.title}"
        yield tables.interruptions(title, heard, found.titles)


def _models(place: Place) -> Iterator[Model]:
    yield models.shipped()
    if place.device != "cpu":
        for name in models.SHAPES:
            yield models.random(name, place.home, place.device)


def _title(what: str, model: Model, callers: int) -> str:
    return f"{what}, {model.title}, {callers} caller{'s' * (callers > 1)}, {generators.TOKENS} tokens each, greedy"


@asynccontextmanager
async def _started(
    place: Place, every: Mapping[str, Start], plan: Plan, only: Sequence[str]
) -> AsyncIterator[Measurement]:
    with ExitStack() as stack:
        found = await contender.start(place.within(stack), every, only)
        try:
            yield Measurement(found, plan, place.notes)
        finally:
            for item in found:
                await item.runner.close()
