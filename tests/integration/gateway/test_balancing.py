"""Three replicas behind a gateway, over mutual TLS: who gets how many calls, and what a lost one costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshgate import errors
from meshgate.rpc.health import NOT_SERVING, SERVING
from meshgate.v1 import embedding_pb2
from tests.support.network import mesh as meshes
from tests.support.network.replicas import ASK, Replica, fleet

NAMES = ("a", "b", "c")


def three(**seconds: float) -> list[Replica]:
    return [Replica(name, seconds.get(name, 0.0)) for name in NAMES]


async def test_calls_are_spread_evenly(tmp_path: Path) -> None:
    async with fleet(tmp_path, three()) as found:
        await found.until(set(NAMES))
        assert await found.spread(60, callers=1) == {"a": 20, "b": 20, "c": 20}


async def test_a_slower_replica_gets_fewer_where_load_is_reported(tmp_path: Path) -> None:
    weights = {"blackout_seconds": 0, "update_seconds": 0.1}
    async with fleet(tmp_path, three(a=0.002, b=0.002, c=0.2), policy="weighted_round_robin", weights=weights) as found:
        await found.until(set(NAMES))
        await found.spread(150)  # reports come with replies
        spread = await found.spread(200)
        assert set(spread) - {"c"} == {"a", "b"}
        assert sum(spread.values()) == 200
        assert spread.get("c", 0) < min(spread["a"], spread["b"]) / 2  # perhaps none: it is a hundred times slower


async def test_a_killed_replica_costs_no_call(tmp_path: Path) -> None:
    async with fleet(tmp_path, three(a=0.05, b=0.05, c=0.05)) as found:
        await found.until(set(NAMES))
        found.replicas["c"].working.clear()
        calls = asyncio.create_task(found.spread(120, callers=12))
        await found.replicas["c"].working.wait()
        await found.wires["c"].cut()  # with calls on it
        answers = await calls
        assert set(answers) <= set(NAMES)
        assert sum(answers.values()) == 120


async def test_a_draining_replica_gets_no_new_calls_and_loses_none(tmp_path: Path) -> None:
    async with fleet(tmp_path, three(a=0.02, b=0.02, c=0.02)) as found:
        await found.until(set(NAMES))
        calls = asyncio.create_task(found.spread(200, callers=12))
        await found.replicas["c"].working.wait()
        await found.servers["c"].stop()
        after = found.replicas["c"].calls
        assert set(await calls) <= set(NAMES)
        assert set(await found.spread(30)) == {"a", "b"}
        assert found.replicas["c"].calls == after


async def test_a_replica_that_is_not_serving_gets_no_calls_until_it_is(tmp_path: Path) -> None:
    async with fleet(tmp_path, three()) as found:
        await found.until(set(NAMES))
        health = found.servers["b"]._health
        await health.set("meshgate.v1.EmbeddingService", NOT_SERVING)
        await found.until({"a", "c"})
        await health.set("meshgate.v1.EmbeddingService", SERVING)
        await found.until(set(NAMES))


async def test_a_failing_replica_is_left_out_and_comes_back(tmp_path: Path) -> None:
    outliers = {"interval_seconds": 0.1, "calls": 5, "ejected_seconds": 0.3}
    async with fleet(tmp_path, three(), outliers=outliers) as found:
        await found.until(set(NAMES))
        found.replicas["b"].error = errors.Internal("broken")
        assert "INTERNAL" in await found.spread(12)
        await found.until({"a", "c"})
        found.replicas["b"].error = None
        await found.until(set(NAMES))


async def test_a_full_replica_is_passed_over_at_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, three()) as found:
        await found.until(set(NAMES))
        found.replicas["a"].error = errors.Unavailable("full", reason="OVERLOADED", retry_after=30.0)
        async with asyncio.timeout(10):  # and not after 30 seconds
            assert set(await found.spread(30, callers=1)) == {"b", "c"}


async def test_a_stream_is_begun_again_elsewhere_but_never_after_its_first_word(tmp_path: Path) -> None:
    async with fleet(tmp_path, three()) as found:
        await found.until(set(NAMES))
        found.replicas["a"].error = errors.Unavailable("full", reason="OVERLOADED")
        begun = {await found.stream(0) for _ in range(6)}
        assert begun == {"bbb", "ccc"}
        ended = {await found.stream(1) for _ in range(6)}
        assert ended == {"a OVERLOADED", "bbb", "ccc"}


async def test_when_all_are_full_the_caller_hears_so_and_when_to_come_again(tmp_path: Path) -> None:
    async with fleet(tmp_path, three()) as found:
        for replica in found.replicas.values():
            replica.error = errors.Unavailable("full", reason="OVERLOADED", retry_after=30.0)
        before = sum(replica.calls for replica in found.replicas.values())
        assert await found.ask() == "OVERLOADED"
        assert sum(replica.calls for replica in found.replicas.values()) == before + 3


async def test_what_may_not_be_repeated_is_sent_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, three(), retries={"attempts": 1}) as found:
        for replica in found.replicas.values():
            replica.error = errors.Unavailable("full", reason="OVERLOADED")
        assert await found.ask() == "OVERLOADED"
        assert sum(replica.calls for replica in found.replicas.values()) == 1


async def test_retries_stop_when_most_calls_fail(tmp_path: Path) -> None:
    async with fleet(tmp_path, three(), retries={"attempts": 5, "throttle_tokens": 10}) as found:
        for replica in found.replicas.values():
            replica.error = errors.Unavailable("full", reason="OVERLOADED")
        assert await found.spread(40) == {"OVERLOADED": 40}
        assert sum(replica.calls for replica in found.replicas.values()) < 60  # and not 200


async def test_a_replica_with_another_name_in_its_certificate_gets_nothing(tmp_path: Path) -> None:
    async with fleet(tmp_path, three(), certificates={"b": "generation"}) as found:
        await found.until({"a", "c"})
        assert set(await found.spread(30)) == {"a", "c"}
        assert found.replicas["b"].calls == 0


async def test_connections_age_without_a_lost_call(tmp_path: Path) -> None:
    replicas = three(a=0.3, b=0.3, c=0.3)
    async with fleet(tmp_path, replicas, server={"max_connection_age_seconds": 1}, retries={"attempts": 1}) as found:
        made = [len(wire.connections) for wire in found.wires.values()]
        assert set(await found.spread(64, callers=8)) == set(NAMES)
        assert all(len(wire.connections) > one for wire, one in zip(found.wires.values(), made, strict=True))


@pytest.mark.parametrize("policy", ["pick_first", "round_robin"])
async def test_certificates_are_renewed_before_all_replicas_without_a_lost_call(tmp_path: Path, policy: str) -> None:
    async with fleet(tmp_path, three(), policy=policy) as found:
        calls = asyncio.create_task(found.spread(150))
        certificate = tmp_path / "certs" / "gateway.pem"
        certificate.write_bytes(certificate.read_bytes())
        backend = found.mesh.gateway._backends["embedding"]
        before = backend._channel
        await backend.refresh(5)
        assert backend._channel is not before
        assert set(await calls) <= set(NAMES)


async def test_a_stream_that_outlasts_its_old_certificate_is_told_so(tmp_path: Path) -> None:
    async with fleet(tmp_path, three()) as found:
        call = found.stub.EmbedStream(metadata=found.mesh.auth(), timeout=20)
        await call.write(embedding_pb2.EmbedStreamRequest(request=ASK))
        assert (await call.read()).response.model in NAMES
        certificate = tmp_path / "certs" / "gateway.pem"
        certificate.write_bytes(certificate.read_bytes())
        await found.mesh.gateway._backends["embedding"].refresh(0.1)
        async with asyncio.timeout(5):
            assert (await meshes.refused(call.read())).reason == "BACKEND_UNAVAILABLE"
