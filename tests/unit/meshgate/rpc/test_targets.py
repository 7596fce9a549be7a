"""Targets as gRPC writes them: which are on this machine, and where a server that listens is reached."""

from __future__ import annotations

import pytest

from meshgate.client import options
from meshgate.rpc import channel, targets

LOCAL = [
    "127.0.0.1:8443",
    "127.8.9.10:1",
    "localhost:8443",
    "LocalHost.:8443",
    "mesh.localhost:8443",
    "localhost",
    "[::1]:8443",
    "::1",
    "[::ffff:127.0.0.1]:8443",
    "dns:localhost:8443",
    "dns:///localhost:8443",
    "dns://9.9.9.9/localhost:8443",
    "ipv4:127.0.0.1:8443,127.0.0.2:8443",
    "ipv6:[::1]:8443",
    "ipv6:%5B::1%5D:8443",
    "passthrough:///127.0.0.1:8443",
    "unix:mesh.sock",
    "unix:///run/mesh.sock",
    "unix-abstract:mesh",
]
ELSEWHERE = [
    "gateway:8443",
    "127.0.0.1.example.com:8443",
    "localhost.example.com:8443",
    "10.0.0.5:8443",
    "0.0.0.0:8443",
    "[fd00::1]:8443",
    "dns:///gateway.mesh:8443",
    "ipv4:127.0.0.1:8443,10.0.0.5:8443",
    "xds:///localhost",
    "",
]


@pytest.mark.parametrize("target", LOCAL)
def test_a_target_of_this_machine_has_no_proxy_by_default(target: str) -> None:
    assert targets.is_local(target)
    assert dict(channel.DIRECT).items() <= dict(options.channel_options(target=target)).items()


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_target_elsewhere_has_the_proxy_of_the_environment(target: str) -> None:
    assert not targets.is_local(target)
    assert not set(dict(channel.DIRECT)) & set(dict(options.channel_options(target=target)))


@pytest.mark.parametrize("target", ["127.0.0.1:1", "gateway:1"])
def test_who_says_whether_a_proxy_is_asked_is_heeded(target: str) -> None:
    direct = dict(channel.DIRECT).items()
    assert direct <= dict(options.channel_options(target=target, proxy=False)).items()
    assert not set(dict(direct)) & set(dict(options.channel_options(target=target, proxy=True)))
    own = options.channel_options([("grpc.enable_http_proxy", 1)], target=target, proxy=False)
    assert dict(own)["grpc.enable_http_proxy"] == 1


def test_no_channel_of_the_mesh_has_a_proxy() -> None:
    assert set(channel.DIRECT) <= set(channel.mesh_options())


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("0.0.0.0:8443", "127.0.0.1:8443"),
        (":8443", "127.0.0.1:8443"),
        ("[::]:8443", "[::1]:8443"),
        ("[::ffff:0.0.0.0]:8443", "127.0.0.1:8443"),
        ("ipv6:[::]:8443", "[::1]:8443"),
        ("ipv4:0.0.0.0:8443", "127.0.0.1:8443"),
        ("127.0.0.1:8443", "127.0.0.1:8443"),
        ("127.0.0.7:8443", "127.0.0.7:8443"),
        ("[::1]:8443", "[::1]:8443"),
        ("10.1.2.3:8443", "10.1.2.3:8443"),
        ("[fd00::2]:8443", "[fd00::2]:8443"),
        ("localhost:8443", "localhost:8443"),
        ("gateway:8443", "gateway:8443"),
        ("dns:///gateway:8443", "gateway:8443"),
        ("unix:mesh.sock", "unix:mesh.sock"),
        ("unix:///run/mesh.sock", "unix:///run/mesh.sock"),
        ("unix-abstract:mesh", "unix-abstract:mesh"),
    ],
)
def test_a_server_is_reached_where_it_listens(listen: str, asked: str) -> None:
    assert targets.reachable(listen) == asked


def test_a_server_of_every_interface_is_reached_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError

    monkeypatch.setattr("socket.socket", none)
    assert targets.reachable("[::]:8443") == "127.0.0.1:8443"
