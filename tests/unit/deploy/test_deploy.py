"""What is deployed agrees with what is there: ports, flags, files, identities. No container engine is needed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

import certs
from gateway.config import GatewayConfig
from meshgate.rpc.channel import server_name
from meshgate.runtime import config
from meshgate.supervisor.paths import PORTS
from services.classification.config import ClassificationConfig
from services.embedding.config import EmbeddingConfig
from services.generation.config import GenerationConfig

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
GUIDE = DEPLOY.parent / "docs" / "howto" / "kubernetes.md"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
SERVICES: dict[str, type[Any]] = {
    "generation": GenerationConfig,
    "embedding": EmbeddingConfig,
    "classification": ClassificationConfig,
}


def documents(*paths: Path) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from yaml.safe_load_all(path.read_text())


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by name."""
    return {item["metadata"]["name"]: item for item in documents(*MANIFESTS) if item["kind"] in kinds}


def pods() -> dict[str, dict[str, Any]]:
    return {name: item["spec"]["template"]["spec"] for name, item in of_kind("Deployment", "StatefulSet").items()}


def container(name: str) -> dict[str, Any]:
    (only,) = pods()[name]["containers"]
    made: dict[str, Any] = only
    return made


def port_of(arguments: list[str]) -> int:
    return int(re.findall(r"0\.0\.0\.0:(\d+)", " ".join(arguments))[0])


def test_every_part_listens_where_its_port_is() -> None:
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    exposed = {int(port) for port in re.findall(r"\b8\d{3}\b", " ".join(re.findall(r"EXPOSE.*", dockerfile())))}
    assert exposed == set(PORTS.values())
    for name, port in PORTS.items():
        deployed = container(name)
        assert port_of(deployed["args"]) == port_of(composed[name]["command"]) == port
        assert [item["containerPort"] for item in deployed["ports"]] == [port]
        assert [item["port"] for item in of_kind("Service")[name]["spec"]["ports"]] == [port]


def test_the_gateway_finds_its_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_STORE_URL", "redis://store:6379")
    made = config.load(DEPLOY / "kubernetes" / "gateway.toml", GatewayConfig)
    targets = {name: backend.target for name, backend in made.backends.items()}
    assert targets == {name: f"dns:///{name}:{PORTS[name]}" for name in SERVICES}
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["gateway"]["command"]
    assert {item for item in composed if "backend" in item} == {
        f"--backend={name}={name}:{PORTS[name]}" for name in SERVICES
    }
    allowed = of_kind("NetworkPolicy")
    assert ports(allowed["services"]["spec"]["ingress"]) == {PORTS[name] for name in SERVICES}
    assert ports(allowed["gateway"]["spec"]["ingress"]) == {PORTS["gateway"]}
    assert ports(allowed["gateway"]["spec"]["egress"]) >= {*(PORTS[name] for name in SERVICES), 53, 6379}


def ports(rules: list[dict[str, Any]]) -> set[int]:
    return {item["port"] for rule in rules for item in rule["ports"]}


def reached(port: int) -> list[dict[str, Any]]:
    """The gateway's rules that let it out to a port of anybody."""
    rules = of_kind("NetworkPolicy")["gateway"]["spec"]["egress"]
    anywhere = [rule for rule in rules if all("ipBlock" in place for place in rule.get("to", ()))]
    return [rule for rule in anywhere if port in ports([rule])]


@pytest.mark.parametrize(
    "reached_by_default", ["https://issuer.example/jwks", "rediss://store:6379", "grpc://collector:4317"]
)
def test_the_gateway_reaches_what_its_configuration_may_name(reached_by_default: str) -> None:
    found = urlsplit(reached_by_default)
    assert reached(found.port or {"https": 443}[found.scheme])


def test_the_way_to_issuers_is_none_to_the_clouds_metadata() -> None:
    (rule,) = reached(443)
    blocks = [ipaddress.ip_network(place["ipBlock"]["cidr"]) for place in rule["to"]]
    assert [block.prefixlen for block in blocks] == [0, 0]
    for address in ("169.254.169.254", "fd00:ec2::254"):
        excepted = [ipaddress.ip_network(cidr) for place in rule["to"] for cidr in place["ipBlock"]["except"]]
        assert any(
            ipaddress.ip_address(address) in block for block in excepted if ":" in str(block) or ":" not in address
        )


def metrics_ports(name: str, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Where a deployed part tells its metrics."""
    if name != "gateway":
        arguments = container(name)["args"]
        return {int(arguments[arguments.index("--metrics") + 1].removeprefix("0.0.0.0:"))}
    monkeypatch.setenv("MESHGATE_STORE_URL", "redis://store:6379")
    made = config.load(DEPLOY / "kubernetes" / "gateway.toml", GatewayConfig)
    assert made.metrics.listen is not None
    host, first = made.metrics.listen.rsplit(":", 1)
    assert host == "0.0.0.0"
    return {int(first) + worker for worker in range(made.workers)}


@pytest.mark.parametrize("name", PORTS)
def test_prometheus_reaches_every_part_and_nobody_else_its_metrics(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = of_kind("NetworkPolicy")
    allowed = policies["metrics"]["spec"]
    assert allowed["podSelector"] == {}
    (rule,) = allowed["ingress"]
    (place,) = rule["from"]
    assert place["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    told = metrics_ports(name, monkeypatch)
    assert told <= ports([rule])
    others = [rule for other in ("gateway", "services") for rule in policies[other]["spec"]["ingress"]]
    assert not told & ports(others)


def test_the_namespace_is_there_before_what_is_made_in_it() -> None:
    text = GUIDE.read_text()
    commands = [line.strip() for line in text.splitlines() if line.strip().startswith("kubectl ")]
    assert commands[0] == "kubectl apply --filename deploy/kubernetes/namespace.yaml"
    assert commands[-1] == "kubectl apply --kustomize deploy"
    assert len(commands) == 4
    assert all("--namespace meshgate" in command for command in commands[1:-1])
    assert {command.split()[command.split().index("create") + 1] for command in commands[1:-1]} == {
        "secret",
        "configmap",
    }


def test_what_is_made_by_hand_is_what_the_manifests_name() -> None:
    text = GUIDE.read_text()
    (env,) = container("gateway")["env"]
    assert f"generic {env['valueFrom']['secretKeyRef']['name']} " in text
    named = {volume["configMap"]["name"] for volume in pods()["gateway"]["volumes"] if "configMap" in volume}
    assert any(f"configmap {name} " in text for name in named)


def test_identities_are_those_that_peers_admit() -> None:
    leaves = {name: item["spec"] for name, item in of_kind("Certificate").items() if not item["spec"].get("isCA")}
    assert set(leaves) == set(certs.NAMES)
    for name, leaf in leaves.items():
        assert leaf["uris"] == [f"spiffe://{certs.TRUST_DOMAIN}/{name}"]
        assert server_name(name) in leaf["dnsNames"]
        assert "ipAddresses" not in leaf and "commonName" not in leaf
        others = {host for other, spec in leaves.items() if other != name for host in spec["dnsNames"]}
        assert not others & {*leaf["dnsNames"], "localhost"}
        assert leaf["privateKey"]["algorithm"] == "ECDSA"
    for name, model in SERVICES.items():
        health = config.load(DEPLOY / "config" / f"{name}.toml", model).server.peers["/grpc.health.v1.Health/*"]
        assert set(health) == {leaves["gateway"]["uris"][0], leaves[name]["uris"][0]}


def test_every_file_of_a_configuration_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", "/var/lib/meshgate")
    for name in PORTS:
        folder = DEPLOY / ("kubernetes" if name == "gateway" else "config")
        named = {Path(found) for found in re.findall(r'"(/var/lib/meshgate/[^"]+)"', expanded(folder / f"{name}.toml"))}
        mounted = {Path(mount["mountPath"]) for mount in container(name)["volumeMounts"]}
        assert named
        assert all(mounted & set(path.parents) for path in named)
        (secret,) = (volume["secret"] for volume in pods()[name]["volumes"] if "secret" in volume)
        assert secret["secretName"] == of_kind("Certificate")[name]["spec"]["secretName"]
        pem = {path.name for path in named if path.parent.name == "certs"}
        assert {item["path"] for item in secret["items"]} == pem


def expanded(path: Path) -> str:
    return path.read_text().replace("${MESHGATE_HOME}", str(config.home()))


def test_every_mount_has_a_volume_and_every_probe_a_configuration() -> None:
    for name in PORTS:
        claimed = {
            claim["metadata"]["name"]
            for claim in of_kind("StatefulSet").get(name, {}).get("spec", {}).get("volumeClaimTemplates", ())
        }
        volumes = {volume["name"] for volume in pods()[name]["volumes"]} | claimed
        assert {mount["name"] for mount in container(name)["volumeMounts"]} == volumes
        asked = container(name)["startupProbe"]["exec"]["command"]
        assert asked == container(name)["readinessProbe"]["exec"]["command"]
        assert asked == ["python", "-m", "meshgate.runtime.probe", "--config", f"/etc/meshgate/{name}.toml"]


def test_nothing_runs_as_root_or_writes_where_it_need_not() -> None:
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in PORTS:
        assert pods()[name]["securityContext"]["runAsNonRoot"]
        security = container(name)["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not security["allowPrivilegeEscalation"]
        assert composed[name]["read_only"]
        assert composed[name]["cap_drop"] == ["ALL"]
    uid = re.findall(r"^USER (\d+):", dockerfile(), re.MULTILINE)
    assert uid == [str(pods()["gateway"]["securityContext"]["runAsUser"])]


def test_what_kustomize_names_is_there() -> None:
    named = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    (generator,) = named["configMapGenerator"]
    files = [item.partition("=")[2] or item for item in generator["files"]]
    assert all((DEPLOY / path).is_file() for path in [*named["resources"], *files])
    assert {item["name"] for item in named["images"]} == {item["image"] for item in map(container, PORTS)}
    mounted = {Path(item.partition("=")[0]).name for item in generator["files"]}
    assert mounted == {f"{name}.toml" for name in PORTS}


def test_an_image_is_made_of_what_is_there() -> None:
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = [
        path for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(), re.MULTILINE) for path in line.split()
    ]
    assert copied
    assert all((ROOT / path).exists() for path in copied)
    assert set(copied) == allowed
    assert not re.search(r"\.pem|\.key|MESHGATE_STORE_URL", dockerfile())


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()
