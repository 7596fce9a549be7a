"""The blocking half of the SDK is made from the asyncio half by words alone."""

from __future__ import annotations

import pytest

from tools import unasync


@pytest.mark.parametrize(
    ("written", "generated"),
    [
        ("async def get(self) -> Token:", "def get(self) -> Token:"),
        ("async with within(1), self._lock:", "with within(1), self._lock:"),
        ("token = await self._source.get()", "token = self._source.get()"),
        ("except grpc.aio.AioRpcError as error:", "except grpc.RpcError as error:"),
        ("from meshgate.client.aio.transport import Lock", "from meshgate.client.blocking.transport import Lock"),
        ("source: AsyncTokenSource", "source: TokenSource"),
    ],
)
def test_asynchronous_words_have_a_blocking_form(written: str, generated: str) -> None:
    assert unasync.blocking(written) == generated


@pytest.mark.parametrize("left", ["asyncio.Lock()", "(await)", "async_with = aio", "def __aenter__(self):"])
def test_a_word_without_a_blocking_form_is_an_error(left: str) -> None:
    with pytest.raises(ValueError, match="has no blocking form"):
        unasync.blocking(left)


def test_a_file_that_was_changed_by_hand_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = unasync.generate
    monkeypatch.setattr(unasync, "generate", lambda name: made(name) + ("#\n" if name == "sealed.py" else ""))
    assert unasync.main([]) == 1
    assert capsys.readouterr().err.startswith("sealed.py: ")


def test_what_is_committed_is_fresh() -> None:
    assert unasync.main([]) == 0
