"""The human sentiment ratings that VADER published, and how we cut and split them.

The sdist of `vaderSentiment` (MIT) carries four files of short texts, each with the mean of about twenty people's
ratings on -4 (most negative) .. 4 (most positive). The texts are not vendored: pip fetches the sdist, and its hash is
checked before anything in it runs or is read.

Leakage is what would make the figures lie, so the split is by *group*, never by text: sentences of one product review
or one editorial share a group. Films and tweets carry no such id, only their place in the file, so neighbours share a
group there. A training text that repeats a held-out one but for case and punctuation is dropped.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
RATINGS_MEMBER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
FILES = {
    "tweets": "tweets_GroundTruth.txt",
    "films": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}

LABELS = ("negative", "neutral", "positive")
NEGATIVE, NEUTRAL, POSITIVE = range(3)
CUT = 0.5  # a mean rating must lie beyond +-CUT to be positive or negative; on the cut it is neutral
SEED = 20240
HELD_OUT = 0.2  # of each source's texts
NEIGHBOURS = 20  # consecutive texts that share a group where the file names no document


class DataError(Exception):
    """The sdist is missing, altered, or not in the form expected."""


@dataclass(frozen=True)
class Rating:
    """One text and the mean of its human ratings (-4..4); `group` is what must not straddle the split."""

    source: str
    group: str
    text: str
    mean: float


@dataclass(frozen=True)
class Split:
    """Training and held-out ratings; disjoint in text and in group."""

    train: tuple[Rating, ...]
    held_out: tuple[Rating, ...]


def label_of(mean: float) -> int:
    """Index into LABELS of a mean rating."""
    if mean > CUT:
        return POSITIVE
    return NEGATIVE if mean < -CUT else NEUTRAL


def soft_label(mean: float, spread: float) -> tuple[float, float, float]:
    """Probabilities of LABELS if `mean` were off by a normal error of deviation `spread`; sums to 1.

    Twenty people's mean has a standard error of about 0.25, so 0.45 and 0.55 should not teach opposite things.
    """

    def below(cut: float) -> float:
        return 0.5 * (1.0 + math.erf((cut - mean) / (spread * math.sqrt(2.0))))

    negative, not_positive = below(-CUT), below(CUT)
    return negative, not_positive - negative, 1.0 - not_positive


def normalise(text: str) -> str:
    """The text without case, punctuation and runs of space: equal for texts that only look different."""
    words = re.sub(r"\W+", " ", text.casefold()).strip()
    return words or text.strip()  # a text of punctuation alone (an emoticon) is its own key


def parse(source: str, content: str) -> list[Rating]:
    """Ratings of one file of `id<TAB>mean<TAB>text` lines; raises DataError on any other line."""
    ratings = []
    for number, line in enumerate(content.splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) != 3:
            raise DataError(f"{source}:{number}: expected 3 fields, found {len(fields)}")
        identity, mean, text = fields
        ratings.append(Rating(source, _group(identity), text.strip(), float(mean)))
    return ratings


def _group(identity: str) -> str:
    """`12_3` is sentence 3 of document 12; a bare `345` has only neighbours."""
    document, underscore, _ = identity.partition("_")
    return document if underscore else f"n{int(identity) // NEIGHBOURS}"


def deduplicate(ratings: Iterable[Rating]) -> list[Rating]:
    """The first of each exact text."""
    return list({rating.text: rating for rating in reversed(list(ratings))}.values())[::-1]


def split(ratings: Sequence[Rating], seed: int = SEED, held_out: float = HELD_OUT) -> Split:
    """Hold out whole groups of each source until they make up `held_out` of its texts.

    The order is by a hash and not by `random`, so that it is the same on every version of Python, and a text added to
    one source moves nothing in another.
    """
    unique = deduplicate(ratings)
    chosen: set[tuple[str, str]] = set()
    for source in {rating.source for rating in unique}:
        chosen |= {(source, group) for group in _held_out_groups(unique, source, seed, held_out)}
    test = [rating for rating in unique if (rating.source, rating.group) in chosen]
    seen = {normalise(rating.text) for rating in test}
    train = [r for r in unique if (r.source, r.group) not in chosen and normalise(r.text) not in seen]
    return Split(tuple(train), tuple(test))


def _held_out_groups(ratings: Sequence[Rating], source: str, seed: int, share: float) -> set[str]:
    sizes: dict[str, int] = {}
    for rating in ratings:
        if rating.source == source:
            sizes[rating.group] = sizes.get(rating.group, 0) + 1
    wanted, total, groups = share * sum(sizes.values()), 0, set()
    for group in sorted(sizes, key=lambda g: hashlib.sha256(f"{seed}:{source}:{g}".encode()).digest()):
        if total >= wanted:
            break
        groups.add(group)
        total += sizes[group]
    return groups


def fetch_sdist(cache: Path) -> Path:
    """The sdist in `cache`, by pip if it isn't there yet; raises DataError when it can't be had or was altered."""
    sdist = cache / SDIST
    if not sdist.exists():
        _download(cache)
    if not sdist.exists() or hashlib.sha256(sdist.read_bytes()).hexdigest() != SDIST_SHA256:
        raise DataError(f"{sdist} is not the sdist whose sha256 is {SDIST_SHA256}")
    return sdist


def _download(cache: Path) -> None:
    """Let pip fetch the sdist; with --require-hashes it checks the hash before it runs the sdist's setup.py."""
    cache.mkdir(parents=True, exist_ok=True)
    wanted = cache / "requirements.txt"
    wanted.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SDIST_SHA256}\n")
    options = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "--quiet", "--dest", str(cache)]
    pip = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(wanted)]
    try:
        subprocess.run(pip, check=True)  # noqa: S603 - our own arguments, no shell
    except subprocess.CalledProcessError as error:
        raise DataError(f"pip could not download {SDIST}") from error


def read_ratings(sdist: Path) -> list[Rating]:
    """Every rating in the sdist, read in memory, nothing unpacked to disk; raises DataError if a file is missing."""
    try:
        with tarfile.open(sdist) as outer:
            inner = _member(outer, RATINGS_MEMBER)
        with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
            contents = {name: _member(archive, f"hutto_ICWSM_2014/{file}") for name, file in FILES.items()}
    except (KeyError, tarfile.TarError) as error:
        raise DataError(f"{sdist} does not hold the ratings") from error
    return [rating for source, content in contents.items() for rating in parse(source, content.decode())]


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise DataError(f"{name} is not a file")
    return file.read()
