"""Tables at every width: no word is broken, nothing is cut, and what is what can be told."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.commands import audit_output
from meshgate.cli.commands import embed
from meshgate.cli.screen import tables
from meshgate.v1 import models_pb2 as pb

WIDTHS = [20, 40, 60, 80, 100, 120, 200]
RECORDS = [
    {
        "time": 1_796_000_000_123_456,
        "event": event,
        "tenant": "acme-production",
        "subject": "svc:customer-support-backend",
        "method": "/meshgate.v1.GenerationService/GenerateStream",
        "model": "SmolLM2-135M-Instruct",
        "reason": reason,
        "input_tokens": 1204,
    }
    for event, reason in (("ended", ""), ("refused", "CONCURRENCY_LIMITED"), ("refusals", "TOKEN_EXPIRED"))
]


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    console.print(tables.fitted(table, console))
    return out.getvalue()


def models() -> Table:
    card = pb.Model(
        name="SmolLM2-135M-Instruct",
        aliases=["smollm2", "default-small"],
        capabilities=[pb.CAPABILITY_GENERATE],
        default=True,
        max_input_tokens=2048,
        max_output_tokens=1024,
        max_candidates=16,
        dtype="bfloat16",
        quantisation="int8",
        device="cpu",
    )
    made = Table(*embed._COLUMNS, box=None)
    made.add_row(*(Text(str(cell)) for cell in embed._described(card)))
    return made


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("table", [lambda: audit_output._table(RECORDS), models], ids=["audit", "models"])
def test_every_word_is_whole_at_every_width(table: object, width: int) -> None:
    made = table()  # type: ignore[operator]
    words = {word for column in made.columns for cell in column.cells for word in str(cell).split()}
    said = printed(made, width)
    shown = set(said.split())
    assert {word for word in words if len(word) <= width - 2} <= shown
    assert all(cell_len(line) <= width for line in said.splitlines())
    for word in words:  # one that is longer than a line is folded, and nothing of it is lost
        assert word in re.sub(r"\s+", "", said)


@pytest.mark.parametrize("width", [40, 80])
def test_who_method_and_outcome_are_named_where_columns_have_no_room(width: int) -> None:
    said = printed(audit_output._table(RECORDS), width)
    for part in ("who: acme-production/svc", "method: GenerateStream", "outcome: CONCURRENCY_LIMITED", "tokens: 1204"):
        assert re.sub(r"\s+", " ", said).count(part) >= 1


def test_a_wide_terminal_has_columns() -> None:
    header, *rows = printed(audit_output._table(RECORDS), 200).splitlines()
    assert header.split() == ["time", "event", "who", "method", "model", "outcome", "tokens"]
    assert len(rows) == len(RECORDS)


@example(
    [("好b你", "///yzx-"), ("b你 好क你好你aaaकbba好  b你कa好好好你a", "y/zxx/-y/-z//-xy/xyx/xxx/--zz")], 47
)  # a wide first column, beside which rich made the second narrower than its longest word
@given(
    st.lists(st.tuples(st.text("ab 你好\u0915", max_size=60), st.text("xyz-/", max_size=60)), max_size=4),
    st.integers(10, 120),
)
def test_nothing_is_lost_whatever_is_in_it(rows: list[tuple[str, str]], width: int) -> None:
    made = Table("first", "second", box=None)
    for row in rows:
        made.add_row(*map(Text, row))
    said = printed(made, width)
    assert all(cell_len(line) <= width for line in said.splitlines())
    bare = re.sub(r"\s+", "", said)
    for letter in "你好z-/":
        assert bare.count(letter) == sum("".join(row).count(letter) for row in rows)
