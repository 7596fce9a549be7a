"""`python -m services.classification.training`: from the sdist to shipped weights and their figures, in minutes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from safetensors.torch import load_file

from services.classification.model.sentiment import BASE, build, installed_base, shipped_dir
from services.classification.training import compress, data, evaluate, train

console = Console()


def main() -> None:
    """Fetch, split, train, compress, ship, then measure what was shipped by loading it as the service does."""
    options = _options()
    recipe = train.Recipe()
    torch.set_num_threads(options.threads)  # a sum's order, hence its last bits, depend on it
    with console.status("fetching the ratings"):
        parts = data.split(data.read_ratings(data.fetch_sdist(options.cache)), recipe.seed)
    console.print(f"{len(parts.train)} texts to train on, {len(parts.held_out)} held out")
    if not options.evaluate_only:
        _train(options, recipe, parts)
    _report(_measure(options, parts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.classification.training", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("build/sentiment"), help="where pip puts the sdist")
    parser.add_argument("--out", type=Path, default=shipped_dir(), help="where weights and config.json go")
    parser.add_argument("--base", type=Path, default=installed_base(), help="MiniLM's directory")
    parser.add_argument("--limit", type=int, help="train on this many texts only, to try the command out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--evaluate-only", action="store_true", help="measure the weights in --out")
    return parser.parse_args()


def _train(options: argparse.Namespace, recipe: train.Recipe, parts: data.Split) -> None:
    base = load_file(options.base / BASE)
    ratings, tokenizer = parts.train[: options.limit], train.tokenizer_of(options.base)
    with progress("training", train.step_count(ratings, recipe)) as advance:
        model = train.train(
            lambda: build(options.base, base, len(data.LABELS)),
            ratings,
            tokenizer,
            recipe,
            lambda loss: advance(1, f"loss {loss:.3f}"),
        )
    facts = {
        "cut": data.CUT,
        "recipe": dataclasses.asdict(recipe),
        "data_sha256": data.SDIST_SHA256,
    }
    compress.ship(options.out, options.base, compress.updates_of(model, base), data.LABELS, facts)


def _measure(options: argparse.Namespace, parts: data.Split) -> dict[str, evaluate.Figures]:
    with progress("measuring", len(parts.held_out)) as advance:
        return evaluate.measure(options.base, options.out, parts.held_out, lambda size: advance(size, ""))


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar; what it gives advances it by a number of steps and sets its note."""
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda steps, note: bar.update(task, advance=steps, note=note)


def _report(results: dict[str, evaluate.Figures]) -> None:
    table = Table("held-out texts", "number", "three-way", "binary", "of", title="what is shipped")
    for source, found in results.items():
        table.add_row(source, str(found.texts), f"{found.three_way:.3f}", f"{found.binary:.3f}", str(found.polar))
    console.print(table)
    confusion = Table("raters \\ predicted", *data.LABELS)
    for label, row in zip(data.LABELS, results["all"].confusion, strict=True):
        confusion.add_row(label, *map(str, row))
    console.print(confusion)


if __name__ == "__main__":
    main()
