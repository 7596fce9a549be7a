"""Stop sequences: the same cut wherever the pieces of text are cut, and nothing of a match ever let out."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.generation.text.stop import StopScanner

TEXT = st.text(alphabet="ab我", max_size=24)
STOPS = st.lists(st.text(alphabet="ab我", min_size=1, max_size=4), max_size=3)


def scan(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    scanner, out = StopScanner(stops), ""
    for piece in pieces:
        text, matched = scanner.feed(piece)
        out += text
        if matched is not None:
            return out, matched
    return out + scanner.flush(), None


def reference(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the first end of a stop sequence; of those that end there, the longest."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@settings(deadline=None)
@given(TEXT, STOPS, st.lists(st.integers(0, 24), max_size=6))
@example("aab", ["ab"], [2])
@example("aaab", ["aab", "ab"], [1, 2, 3])
def test_the_cut_does_not_depend_on_the_pieces(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert scan(pieces, stops) == reference(text, stops)


def test_text_that_may_be_a_beginning_is_held_back_and_nothing_else() -> None:
    scanner = StopScanner(["STOP"])
    assert scanner.feed("go ST") == ("go ", None)
    assert scanner.feed("A") == ("STA", None)
    assert scanner.feed("RT") == ("RT", None)
    assert scanner.flush() == ""


def test_what_was_held_comes_out_at_the_end() -> None:
    scanner = StopScanner(["STOP"])
    assert scanner.feed("no STO") == ("no ", None)
    assert scanner.flush() == "STO"
