"""What can only be found out at the start is one line too, which names the file, the key, and what would help."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.app import Gateway
from gateway.config import GatewayConfig
from meshgate.runtime import config
from meshgate.runtime.config import ConfigError
from tests.support.network import mesh as meshes

SHIPPED = Path(__file__).parents[3] / "deploy" / "config"


OTHERS = '[[issuers]]\nissuer = "https://b"\naudience = "b"\n{}\n\n[policy.scopes]'
"""A second issuer before the policy."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory with certificates and keys, which the shipped configuration finds."""
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    meshes.prepare(tmp_path)
    return tmp_path


def written(home: Path, service: str, change: Callable[[str], str] = str) -> Path:
    """The shipped configuration of a service on a free port, changed."""
    text = (SHIPPED / f"{service}.toml").read_text()
    file = home / f"{service}.toml"
    file.write_text(change(re.sub(r'listen = "127.0.0.1:\d+"', 'listen = "127.0.0.1:0"', text, count=1)))
    return file


async def mistake(file: Path) -> list[str]:
    """What the start of a gateway says."""
    with pytest.raises(ConfigError) as caught:
        gateway = Gateway(config.load(file, GatewayConfig))
        try:
            await gateway.start()
        finally:
            await gateway.stop()
    return config.located(caught.value, file)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def overwritten(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["gateway.pem", "gateway-key.pem", "ca.pem"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "can't be read: No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "can't be read: Is a directory"),
        (piped, "can't be read: it is no regular file"),
        (lambda path: overwritten(path, b""), "not a"),
        (lambda path: overwritten(path, b"\xff\x00"), "not a"),
        (lambda path: overwritten(path, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "not a"),
        (lambda path: overwritten(path, (path.parent / "generation-key.pem").read_bytes()), "not a|not the key of"),
    ],
    ids=["missing", "directory", "pipe", "empty", "binary", "cut", "another"],
)
async def test_each_pem_file_is_named_with_its_key(
    home: Path, name: str, spoil: Callable[[Path], object], told: str
) -> None:
    file = written(home, "gateway")
    spoil(home / "certs" / name)
    [line] = await mistake(file)
    key = {"gateway.pem": "certificate", "gateway-key.pem": "key", "ca.pem": "ca"}[name]
    assert re.match(rf"{re.escape(str(file))}: mesh\.{key}: {re.escape(str(home))}/certs/{name}: .*({told})", line), (
        line
    )


async def test_what_callers_see_is_another_section(home: Path) -> None:
    file = written(home, "gateway", lambda text: text.replace("certs/gateway.pem", "certs/edge.pem", 1))
    [line] = await mistake(file)
    assert line.startswith(f"{file}: server.tls.certificate: {home}/certs/edge.pem: can't be read")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda text: text.replace('keys/jwks.json"', 'keys/none.json"'),
            r"issuers\.0\.jwks: .*none.json: No such file",
        ),
        (
            lambda text: text.replace('HOME}/audit"', 'HOME}/gateway.toml"'),
            "audit.directory: .*gateway.toml: File exists",
        ),
        (lambda text: text.replace('keys/sealing"', 'gateway.toml"'), r"sealing.keys: .*toml: File exists"),
        (
            lambda text: text + '[revocation]\nfile = "${MESHGATE_HOME}/none.json"\n',
            r"revocation.file: .*none.json: ",
        ),
        (lambda text: text.replace(":0", ":{port}"), r"server.listen: can't listen on .*: another process uses it; "),
        (lambda text: text.replace("127.0.0.1:0", "192.0.2.1:0"), "server.listen: can't listen .*: cannot assign"),
        (
            lambda text: text.replace("127.0.0.1:0", "no-such-host.invalid:0"),
            "server.listen: can't listen on .*: .*; choose",
        ),
        (lambda text: text + '[metrics]\nlisten = "127.0.0.1:{port}"\n', "metrics.listen: can't listen on .*: another"),
        (
            lambda text: text + '[[audit.sinks]]\nkind = "otlp"\ntarget = "127.0.0.1:1"\nca = "/none.pem"\n',
            "audit.sinks.0.ca: /none.pem: No such file",
        ),
        (lambda text: text.replace("127.0.0.1:0", "unix:/none/x.sock"), "server.listen: can't .*: no such file or dir"),
        (lambda text: text.replace("127.0.0.1:0", "unix:/tmp"), "server.listen: can't .*: something else is there"),
        (lambda text: text.replace("127.0.0.1:0", f"unix:/{'a' * 200}"), "server.listen: can't .*: af_unix path too l"),
        (
            lambda text: text.replace('keys = "${MESHGATE_HOME}/keys"', 'keys = "/etc/passwd"'),
            "audit.keys: /etc/passwd",
        ),
        (
            lambda text: text.replace("certs/ca.pem", "certs/gateway.pem"),
            "mesh.ca: .*: none of its certificates is a CA",
        ),
        (
            lambda text: text.replace("[policy.scopes]", OTHERS.format('jwks = "/none"')),
            r"issuers\.1\.jwks: /none: No such",
        ),
        (
            lambda text: text.replace("[policy.scopes]", OTHERS.format('jwks_url = "https://a/"\njwks_ca = "/none"')),
            r"issuers\.1\.jwks_ca: /none: No such file",
        ),
        (
            lambda text: text.replace(
                "[policy.scopes]", OTHERS.format('jwks_url = "https://a/"\njwks_ca = "/etc/passwd"')
            ),
            r"issuers\.1\.jwks_ca: /etc/passwd: not PEM certificates",
        ),
    ],
)
async def test_the_rest_of_the_start_names_its_key(home: Path, change: Callable[[str], str], told: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        file = written(home, "gateway", lambda text: change(text).replace("{port}", port))
        lines = await mistake(file)
    assert len(lines) == 1
    assert re.match(f"{re.escape(str(file))}: {told}", lines[0]), lines


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty, and not a JWK Set"),
        (b"[]", "no list `keys` of objects, as a JWK Set has"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "none of its keys can be used: public keys for ES256"),
        (b"\xff", "not JSON"),
        (None, "it is no regular file"),
    ],
)
async def test_a_file_of_keys_that_is_none(home: Path, content: bytes | None, told: str) -> None:
    keys = home / "keys" / "jwks.json"
    keys.unlink()
    if content is None:
        os.mkfifo(keys)
    else:
        keys.write_bytes(content)
    file = written(home, "gateway")
    [line] = await mistake(file)
    assert line.startswith(f"{file}: issuers.0.jwks: {keys}: {told}")


@pytest.mark.parametrize("content", [b"{}", b"[]", b"", b"[" * 60_000, b'{"suite": 1, "secret": "00"}'])
async def test_a_file_among_the_sealing_keys_that_is_none(home: Path, content: bytes) -> None:
    (home / "keys" / "sealing").mkdir(exist_ok=True)
    strange = home / "keys" / "sealing" / "a.json"
    strange.write_bytes(content)
    file = written(home, "gateway")
    told = f"{file}: sealing.keys: {strange}: not a sealing key; move it away, and another is made"
    assert await mistake(file) == [told]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", 'empty: {"revoked": []} says that nobody is revoked'),
        (b'{"revoked": [], "revoked": []}', "`revoked` is repeated: parsers differ on the one that counts"),
    ],
)
async def test_a_file_of_revocations_that_is_none(home: Path, content: bytes, told: str) -> None:
    (home / "revoked.json").write_bytes(content)
    file = written(home, "gateway", lambda text: text + '[revocation]\nfile = "${MESHGATE_HOME}/revoked.json"\n')
    assert await mistake(file) == [f"{file}: revocation.file: {home}/revoked.json: {told}"]


@pytest.mark.parametrize(
    ("service", "section", "device"),
    [
        ("generation", "model", "cuda"),
        ("generation", "model", "meta"),
        ("embedding", "model", "tpu"),
        ("classification", "engine", "cuda:7"),
    ],
)
def test_a_process_says_it_in_its_log_and_ends_with_status_2(
    home: Path, service: str, section: str, device: str
) -> None:
    def change(text: str) -> str:
        there = f'device = "{device}"\n'
        return (
            text.replace(f"[{section}]\n", f"[{section}]\n{there}")
            if f"[{section}]" in text
            else text + f"[{section}]\n{there}"
        )

    file = written(home, service, change)
    command = [sys.executable, "-m", f"services.{service}", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=dict(os.environ))
    assert done.returncode == 2, done.stderr
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    errors = [entry["message"] for entry in entries if entry["level"] == "error"]
    assert errors == [f"{file}: {section}.device: '{device}' is not on this machine: set auto or cpu"]
    assert not any("exception" in entry for entry in entries)
