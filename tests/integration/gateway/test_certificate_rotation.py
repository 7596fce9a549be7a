"""Certificates are replaced one file after the other: what does not fit together yet is not taken up."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.forwarding.backend import Backend, BackendConfig
from tests.support.network import mesh as meshes


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    meshes.prepare(tmp_path)
    made = Backend("generation", BackendConfig(target="127.0.0.1:1"), meshes.identity(tmp_path, "gateway"))
    yield made
    await made.close()


@pytest.mark.parametrize("name", ["gateway.pem", "gateway-key.pem", "ca.pem"])
@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"half")],
    ids=["gone", "empty", "half"],
)
async def test_the_old_channel_stays_until_all_files_fit(
    tmp_path: Path, backend: Backend, name: str, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    file, before = tmp_path / "certs" / name, backend._channel
    kept = shutil.copy(file, tmp_path)
    file.chmod(0o600)
    spoil(file)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await backend.refresh(0)
    assert backend._channel is before
    assert len([entry for entry in caplog.records if "old ones stay" in entry.message]) == 1  # not one a look
    file.unlink(missing_ok=True)
    shutil.move(kept, file)
    await backend.refresh(0)
    assert backend._channel is not before


async def test_a_key_that_comes_after_its_certificate_is_waited_for(tmp_path: Path, backend: Backend) -> None:
    folder, before = tmp_path / "certs", backend._channel
    for ending in (".pem", "-key.pem"):
        (folder / f"gateway{ending}").unlink()
        shutil.copy(folder / f"stranger{ending}", folder / f"gateway{ending}")
        await backend.refresh(0)
        assert (backend._channel is before) == (ending == ".pem")
