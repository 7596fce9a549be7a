"""Every mistake in a configuration is one line that names the file, the key and what would be right, in plain words."""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from gateway.audit import AuditConfig
from gateway.config import GatewayConfig
from meshgate.runtime import config
from meshgate.runtime.config import ConfigError, Strict, schema
from services.classification.config import ClassificationConfig
from services.embedding.config import EmbeddingConfig
from services.generation.config import GenerationConfig

SHIPPED = Path(__file__).parents[5] / "deploy" / "config"
KINDS: Mapping[str, type[Strict]] = {
    "gateway": GatewayConfig,
    "generation": GenerationConfig,
    "embedding": EmbeddingConfig,
    "classification": ClassificationConfig,
}
PYDANTIC = re.compile(
    r"Input should|Extra inputs|Value error|Field required|valid (integer|number|string|tuple)|pydantic"
)

Path_ = tuple[str | int, ...]


def settable(model: type[BaseModel], at: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Every key of a configuration that can be reached through sections, lists and tables, with its place's type."""
    for name, field in model.model_fields.items():
        place = schema.place_of(field)
        yield (*at, name), place
        for inner in dict.fromkeys(schema.sections_of(place)):
            yield from settable(inner, (*at, name, *_step(place, inner)))


def _step(place: Any, inner: type[BaseModel]) -> Path_:
    """What stands between a key and the section in it: a name where it is a table, a number where it is a list."""
    if inner in schema.kinds_of(place.kind):
        return ()
    return ("acme",) if "Mapping" in str(place.kind) or "dict" in str(place.kind) else (0,)


def placed(document: dict[str, Any], at: Path_, value: Any) -> dict[str, Any]:
    """The document with `value` at `at`; what is missing on the way is made."""
    made = copy.deepcopy(document)
    here: Any = made
    for part, following in zip(at, [*at[1:], None], strict=True):
        empty: Any = value if following is None else [{}] if following == 0 else {}
        if isinstance(part, int):
            if not isinstance(here, list):
                return made
            here[0] = value if following is None else here[0]
        elif following is None or not isinstance(here.get(part), type(empty)):
            here[part] = empty
        here = here[part]
    return made


def lines(kind: str, document: Mapping[str, Any]) -> list[str]:
    """What is wrong with a document."""
    with pytest.raises(ConfigError) as caught:
        config.parse(document, Path("/etc/meshgate.toml"), KINDS[kind])
    return str(caught.value).splitlines()


def shipped(kind: str, at: Path_ = ()) -> dict[str, Any]:
    """The configuration that we ship, with a sink of the kind that has the key `at` where it is a sink's."""
    document = tomllib.loads((SHIPPED / f"{kind}.toml").read_text())
    if "sinks" not in at[:-1]:
        return document
    sinks = schema.sections_of(schema.place_of(AuditConfig.model_fields["sinks"]))
    tag = next(get_args(schema.tag_of(each))[0] for each in sinks if at[3] in each.model_fields)
    return placed(document, ("audit", "sinks"), [{"kind": tag}])


KEYS = [(kind, at) for kind, model in KINDS.items() for at, _ in settable(model) if at != ("audit", "sinks", 0, "kind")]


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_has_every_section(kind: str) -> None:
    """A walk that missed half of the keys would prove nothing."""
    assert sum(each == kind for each, _ in KEYS) >= {"gateway": 100, "classification": 60}.get(kind, 40)


def test_a_value_of_the_wrong_type_is_told_by_key_for_every_key() -> None:
    for kind, at in KEYS:
        found = lines(kind, placed(shipped(kind, at), at, [[True]]))
        key = schema.dotted(map(str, at))
        told = [line for line in found if line.startswith(f"/etc/meshgate.toml: {key}") and "must be" in line]
        assert told, (kind, key, found)
        assert not any(PYDANTIC.search(line) for line in found), found


def test_a_misspelt_key_is_answered_with_what_was_meant_in_every_section() -> None:
    for kind, at in KEYS:
        if not isinstance(at[-1], str) or len(at[-1]) < 5:
            continue
        wrong = (*at[:-1], f"{at[-1][:-2]}{at[-1][-1]}{at[-1][-2]}x")
        found = lines(kind, placed(shipped(kind, at), wrong, 1))
        key = schema.dotted(map(str, wrong))
        told = [line for line in found if line.startswith(f"/etc/meshgate.toml: {key}: unknown key; did you mean ")]
        assert told, (kind, key, found)


@pytest.mark.parametrize(
    ("kind", "at", "value", "told"),
    [
        ("gateway", ("server", "max_calls"), 0, "server.max_calls: must be a whole number from 1 to 1,000,000"),
        ("gateway", ("server", "max_calls"), "many", "server.max_calls: must be a whole number from 1 to 1,000,000"),
        ("gateway", ("server", "reflection"), "yes!", "server.reflection: must be true or false"),
        ("gateway", ("server", "listen"), "here", "server.listen: must be host:port, [IPv6]:port or unix:/path"),
        ("gateway", ("workers",), 65, "workers: must be a whole number from 1 to 64"),
        ("gateway", ("workers",), 2, "workers: more than one need a [store]"),
        ("gateway", ("max_calls",), 1, "max_calls: unknown key here; there is one in [server]"),
        ("gateway", ("limit",), {}, "limit: unknown key; did you mean limits?"),
        ("gateway", ("mesh", "tls"), {}, "mesh.tls: unknown key here; there is one in [server]"),
        ("gateway", ("store",), {"url": "http://x"}, "store.url: must begin with one of redis://"),
        (
            "gateway",
            ("limits", "tenant", "burst"),
            -1,
            "limits.tenant.burst: must be a whole number from 1 to 1,000,000",
        ),
        ("gateway", ("limits", "models", "a.b"), 1, 'limits.models."a.b": must be a section'),
        ("gateway", ("audit", "sinks"), [{"kind": "kafka"}], "audit.sinks.0.kind: must be one of file, redis, otlp"),
        (
            "gateway",
            ("audit", "sinks"),
            [{"kind": "redis"}],
            "audit.sinks.0.url: is missing: it must be text in quotes",
        ),
        ("gateway", ("audit", "sinks"), [], "audit.sinks: at least one is required"),
        ("gateway", ("issuers",), [], "issuers: must be a list of at least 1 value"),
        ("gateway", ("issuers", 0, "algorithms"), ["HS256"], "issuers.0.algorithms.0: must be one of ES256, EdDSA"),
        ("gateway", ("policy", "scopes", "x"), ["GET /"], "policy.scopes.x.0: "),
        ("generation", ("model", "dtype"), "fp8", "model.dtype: must be one of auto, float32, bfloat16"),
        (
            "generation",
            ("engine", "hang_seconds"),
            0,
            "engine.hang_seconds: must be a number greater than 0 and of at most",
        ),
        ("generation", ("models",), [{"nmae": "x"}], "models.0.nmae: unknown key; did you mean name?"),
        ("embedding", ("model", "prompts"), {"": "x"}, "model.prompts: a name has 1 to 64 bytes"),
        ("classification", ("zero_shot", "scale"), 0, "zero_shot.scale: must be a number greater than 0"),
    ],
)
def test_it_is_said_as_a_person_would(kind: str, at: Path_, value: Any, told: str) -> None:
    found = lines(kind, placed(shipped(kind), at, value))
    assert any(line.startswith(f"/etc/meshgate.toml: {told}") for line in found), found


@pytest.mark.parametrize(("kind", "model"), KINDS.items())
def test_what_is_missing_is_named_with_what_it_must_be(kind: str, model: type[Strict]) -> None:
    for name, field in model.model_fields.items():
        if field.is_required():
            document = {key: value for key, value in shipped(kind).items() if key != name}
            assert any(f": {name}: is missing: it must be a" in line for line in lines(kind, document)), name


LIST = [{"issuer": "https://a", "audience": "a", "jwks": "/a", "algorithms": ["HS256"]}]


@pytest.mark.parametrize(
    ("kind", "at", "value", "told"),
    [
        ("gateway", ("issuers",), LIST, "issuers.0.algorithms.0: must be one of"),
        ("gateway", ("issuers", 0, "algorithms"), "ES256", "issuers.0.algorithms: must be a list"),
        ("gateway", ("issuers", 0, "algorithms"), [], "issuers.0.algorithms: must be a list of at least 1 value"),
        ("gateway", ("issuers", 0, "jwks_url"), "https://x:99999/y", "issuers.0.jwks_url: must be https://host"),
        ("gateway", ("issuers", 0, "jwks_url"), "https://[x/y", "issuers.0.jwks_url: must be https://host"),
        (
            "gateway",
            ("policy", "tenants", "acme"),
            {"defaults": {"generator": "x"}},
            "policy.tenants.acme.defaults.generator: the name must be one of generation, embedding, classification; "
            "did you mean 'generation'",
        ),
        (
            "gateway",
            ("limits", "models", "x"),
            {"burst": 1},
            "limits.models.x.burst: unknown key here; there is one in [limits.models.x.principal]",
        ),
        ("gateway", ("policy", "burst"), 1, "policy.burst: unknown key here; there is one in [limits."),
        ("gateway", ("limits", "tenant", "burst"), True, "limits.tenant.burst: must be a whole number"),
        ("gateway", ("server", "drain_seconds"), False, "server.drain_seconds: must be a number"),
        ("generation", ("models",), [{"max_context": True}], "models.0.max_context: must be a whole number"),
        ("gateway", ("audit", "directory"), "", "audit.directory: must be a path, in quotes, and '' is none"),
        ("gateway", ("audit", "keys"), "a\0b", "audit.keys: must be a path, in quotes, and 'a\\x00b' is none"),
        ("gateway", ("server", "tls", "ca"), "", "server.tls.ca: must be a path"),
        ("gateway", ("issuers", 0, "jwks"), "", "issuers.0.jwks: must be a path"),
        ("gateway", ("audit", "directory"), "${meshgate_home}/a", "audit.directory: after ${ must stand a name in"),
        ("gateway", ("audit", "directory"), "${MESHGATE_HOME/a", "audit.directory: after ${ must stand a name in"),
        ("gateway", ("metrics",), {"listen": "unix:/tmp/x"}, "metrics.listen: must be host:port or [IPv6]:port"),
        ("gateway", ("backends", "embedding", "server_name"), "*.mesh gate", "backends.embedding.server_name: must be"),
        ("gateway", ("store",), {"url": "redis://x:99999/0"}, "store.url: must begin with one of redis://"),
        ("gateway", ("store",), {"url": "redis://u:s3cret@x/0?foo=bar"}, "store.url: must begin with one of redis://"),
        ("gateway", ("store",), {"url": "redis://:s3cret@x:port/0"}, "store.url: must begin with one of redis://"),
        ("gateway", ("audit", "sinks"), [{"kind": "redis", "url": "redis://x:y/0"}], "audit.sinks.0.url: must begin"),
        (
            "gateway",
            ("audit", "sinks"),
            [{"kind": "otlp", "target": "http://x:1"}],
            "audit.sinks.0.target: must be host:",
        ),
        ("embedding", ("server", "peers"), {"/meshgate.v1.ModelService/*": ["gateway"]}, "server.peers: "),
    ],
)
def test_one_mistake_is_one_line(kind: str, at: Path_, value: Any, told: str) -> None:
    document = shipped(kind)
    if "jwks_url" in at:
        del document["issuers"][0]["jwks"]
    found = lines(kind, placed(document, at, value))
    assert len(found) == 1, found
    assert found[0].startswith(f"/etc/meshgate.toml: {told}"), found
    assert "s3cret" not in found[0]


@pytest.mark.parametrize(("wrong", "right"), [("seeling", "sealing"), ("audti", "audit"), ("polizy", "policy")])
def test_a_misspelt_section_is_not_missing_too(wrong: str, right: str) -> None:
    document = shipped("gateway")
    document[wrong] = document.pop(right)
    assert lines("gateway", document) == [f"/etc/meshgate.toml: {wrong}: unknown key; did you mean {right}?"]


def test_a_misplaced_section_is_not_missing_too() -> None:
    document = shipped("gateway")
    document["tls"] = document["server"].pop("tls")
    assert lines("gateway", document) == ["/etc/meshgate.toml: tls: unknown key here; there is one in [server]"]


WRONG = (
    "embedding|https://embedding:8452|http://a:1|a:b|a:99999|a:0|dns://a:1|dns:///a|a:1\n|a b:1|:1|::1:5|[::1]|unix:|"
)
WRONG += "ipv4:1.2.3.4:1,1.2.3.5|a:1/x|a:1?x"
RIGHT = "a:1|a.b-c_d:65535|[::1]:5|dns:///a:1|dns://8.8.8.8/a:1|ipv4:1.2.3.4:1,1.2.3.5:2|dns:a:1|unix:/run/x.sock|"
RIGHT += "unix:///run/x.sock|unix-abstract:x|ipv6:[::1]:5|passthrough:///a:1"


@pytest.mark.parametrize("target", WRONG.split("|"))
def test_a_target_that_would_never_be_reached_is_refused(target: str) -> None:
    [line] = lines("gateway", placed(shipped("gateway"), ("backends", "embedding", "target"), target))
    assert line.startswith("/etc/meshgate.toml: backends.embedding.target: must be host:port, dns:///name:port")
    with pytest.raises(ConfigError, match=r"--backend: embedding=[\s\S]*must be host:port"):
        config.parse(shipped("gateway"), Path("x"), GatewayConfig).with_overrides(None, {"embedding": target})


@pytest.mark.parametrize("target", RIGHT.split("|"))
def test_a_target_that_grpc_reaches_is_taken(target: str) -> None:
    config.parse(placed(shipped("gateway"), ("backends", "embedding", "target"), target), Path("x"), GatewayConfig)


def test_a_pipe_or_a_device_is_no_configuration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="can't be read: it is no regular file"):
            config.load(path, GatewayConfig)


def test_a_variable_that_is_not_set_is_told_with_its_key() -> None:
    found = lines("gateway", placed(shipped("gateway"), ("audit", "sinks"), [{"kind": "redis", "url": "${NOT_SET}"}]))
    assert found == ["/etc/meshgate.toml: audit.sinks.0.url: the environment variable NOT_SET is not set: set it"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[server\n", "not valid TOML: .*line 1"),
        (b"a = 1\na = 2\n", "a: is there twice, again in line 2; leave one out"),
        (b"[a.'b c']\n[a.'b c']\n", "a.'b c': is there twice, again in line 2"),
        (b"[a]\n[[a]]\n", "a: is there twice, again in line 2"),
        (b"a = {b = 1}\n[a]\n", "a: is there twice, again in line 2"),
        (b"a = {b = 1, b = 2}\n", "not valid TOML: .*'b' .*line 1"),
        (b"", "the file is empty; "),
        (b" \n", "the file is empty; "),
        (b"\xef\xbb\xbf[server]\n", "not valid TOML: it begins with a byte order mark; save it"),
        (b'{"server": {}}', "not valid TOML: .*line 1"),
        (b"a = '\xff'", "not valid TOML: not UTF-8 at byte 5"),
        (b"a = " + b"[" * 5000, "not valid TOML: "),
    ],
)
def test_what_is_no_toml_is_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(file, GatewayConfig)
    assert re.match(f"{re.escape(str(file))}: {told}", str(caught.value))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["\x1b[2Jx", "a\nb", 'q"x', "‮x"])
def test_a_key_from_a_file_is_escaped(key: str) -> None:
    [line] = [line for line in lines("gateway", {**shipped("gateway"), key: 1}) if "unknown key" in line]
    assert line.isprintable()


def test_sections_know_where_they_stand(tmp_path: Path) -> None:
    made = config.parse(shipped("gateway"), tmp_path / "c.toml", GatewayConfig)
    assert made.server.tls.key_of("ca") == "server.tls.ca"
    assert made.mesh.key_of("ca") == "mesh.ca"
    assert made.issuers[0].key_of("jwks") == "issuers.0.jwks"
    assert made.policy.tenants["*"].key_of("models") == 'policy.tenants."*".models'
