"""What a log line says, and what it must not."""

from __future__ import annotations

import json
import logging
import sys

from meshgate.runtime.logs.log import Bounded, JsonFormatter


def failed(prompt: str) -> logging.LogRecord:
    try:
        try:
            raise KeyError(prompt)
        except KeyError as error:
            raise ValueError(f"can't do {prompt}") from error
    except ValueError:
        return logging.makeLogRecord({"name": "test", "msg": "call failed", "exc_info": sys.exc_info()})


def test_an_exception_is_its_kind_and_place_and_not_its_text_or_a_path() -> None:
    line = JsonFormatter("gateway").format(failed("a secret prompt"))
    said = json.loads(line)
    assert [item["type"] for item in said["exception"]] == ["builtins.ValueError", "builtins.KeyError"]
    assert said["exception"][0]["at"][0].startswith(f"{__name__}.failed:")
    assert "secret" not in line
    assert __file__ not in line
    assert "\n" not in line


def test_extras_are_members() -> None:
    record = logging.makeLogRecord({"name": "test", "msg": "serving", "port": 8443})
    assert json.loads(JsonFormatter("gateway").format(record))["port"] == 8443


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(number: int) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "test", "lineno": number, "msg": "refused"})


def test_one_line_of_code_says_so_much_a_second_and_then_how_much_was_left_out() -> None:
    told: list[logging.LogRecord] = []
    clock = Clock()
    bounded = Bounded(told.append, clock)
    assert sum(bounded.filter(line(1)) for _ in range(1000)) == 50
    assert bounded.filter(line(2))
    assert told == []
    clock.now = 1.0
    assert bounded.filter(line(2))
    said = json.loads(JsonFormatter("gateway").format(told[0]))
    assert (said["logger"], said["line"], said["left_out"], said["level"]) == ("test", 1, 950, "warning")
    assert sum(bounded.filter(line(1)) for _ in range(1000)) == 50


def test_what_was_left_out_at_the_end_is_told() -> None:
    told: list[logging.LogRecord] = []
    bounded = Bounded(told.append, Clock())
    for _ in range(60):
        bounded.filter(line(1))
    bounded.flush()
    bounded.flush()
    assert [getattr(record, "left_out", None) for record in told] == [10]
