"""What the tables of the services say of what was measured."""

from __future__ import annotations

from bench.load import Load
from bench.rounds import Round
from bench.services import tables
from bench.services.loop import Pieces
from bench.services.rounds import Interruption, StreamRound
from bench.services.starts import Started

TITLES = {"ours": "Meshgate", "peer": "a peer"}


def measured(tokens: int, ms: float = 100.0) -> Round:
    return Round(Load(1.0, tokens, [ms / 1e3] * 4), 0.5, 50_000_000)


def test_ratios_are_of_the_same_round_and_ours_over_the_peer() -> None:
    rounds = {
        "ours": [measured(150), measured(60), measured(160)],
        "peer": [measured(100), measured(50), measured(100)],
    }
    table = tables.rates("Rates", "token", rounds, TITLES, "ours")
    assert [row[:3] for row in table.rows] == [
        ("Meshgate", "150.0 (60.0-160.0)", "-"),
        ("a peer", "100.0 (50.0-100.0)", "1.50 (1.20-1.60)"),
    ]
    assert table.title == "Rates, median of 3 rounds of about 1 s"
    assert table.rows[1][3:] == ("5.00", "100", "100", "50")


def test_without_ours_there_is_no_ratio() -> None:
    table = tables.rates("Rates", "text", {"peer": [measured(10)]}, TITLES, "ours")
    assert table.rows[0][2] == "-"


def test_streams_have_their_first_and_their_next_pieces() -> None:
    pieces = Pieces(elapsed=2.0, tokens=20, firsts=[0.1, 0.3], gaps=[0.01, 0.02, 0.03], ends=[1.0, 1.1, 1.2])
    table = tables.streams("Streams", {"ours": [StreamRound(pieces, 0.2)]}, TITLES)
    assert table.rows == [("Meshgate", "10.0", "300", "300", "20.0", "30.0 (30.0-30.0)", "10.00")]


def test_what_a_long_prompt_does_to_the_others() -> None:
    before, during = Pieces(gaps=[0.01], ends=[1.0]), Pieces(gaps=[0.02, 0.5], ends=[2.0, 3.0])
    table = tables.interruptions("Streams", {"ours": [Interruption(before, during, 1.5)]}, TITLES)
    assert table.rows == [("Meshgate", "10", "500 (500-500)", "500", "1,500")]


def test_starts() -> None:
    table = tables.starts("Starts", {"Meshgate, cold": [Started(2.0, 1_000_000), Started(3.0, 2_000_000)]})
    assert table.rows == [("Meshgate, cold", "2.5 (2.0-3.0)", "2")]
