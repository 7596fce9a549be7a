"""What a log says of a store: where it is and why it does not answer, and never who we are there."""

from __future__ import annotations

import socket

import pytest
import redis

from gateway.redis_client import address, cause

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"redis://user:{SECRET}@store.internal:6380/2", "store.internal:6380"),
        (f"rediss://:{SECRET}@store.internal", "store.internal:6379"),
        ("redis://", "localhost:6379"),
        (f"redis://user:{SECRET}@[fd00::1]:7000", "[fd00::1]:7000"),
        (f"unix://user:{SECRET}@/run/store.sock?db=1&password={SECRET}", "unix:/run/store.sock"),
        ("unix:///a%20b/store.sock", "unix:/a b/store.sock"),
        (f"redis://store:port?password={SECRET}", "redis"),
    ],
)
def test_where_it_is(url: str, said: str) -> None:
    assert address(url) == said


def caused(error: Exception, by: BaseException) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            caused(redis.ConnectionError(SECRET), ConnectionRefusedError(111, "Connection refused")),
            "Connection refused",
        ),
        (caused(redis.ConnectionError(SECRET), socket.gaierror(-2, "Name not known")), "Name not known"),
        (TimeoutError(), "timed out"),
        (redis.TimeoutError(SECRET), "timed out"),
        (redis.ResponseError(f"OOM command not allowed {SECRET}"), "refused with OOM"),
        (redis.ReadOnlyError(f"READONLY {SECRET}"), "refused with READONLY"),
        (redis.ResponseError(SECRET), "ResponseError"),
        (redis.AuthenticationError(f"WRONGPASS {SECRET}"), "AuthenticationError"),
        (redis.ConnectionError(SECRET), "ConnectionError"),
        (None, "NoneType"),
    ],
)
def test_why_it_does_not_answer(error: Exception | None, said: str) -> None:
    assert cause(error) == said
