"""Whatever the bytes, a parser says yes or refuses with the error it promises. Nothing else comes out of it.

MESHGATE_FUZZ_EXAMPLES is how many inputs each tries; the default keeps the suite fast.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, NamedTuple, cast

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import request_info
from gateway.authentication.keys import keyset
from gateway.config import GatewayConfig
from gateway.routes import MODEL_ROUTES, PUBLIC_ROUTES, SEALED_ROUTES, Route
from meshgate import errors
from meshgate.rpc import status
from meshgate.rpc.call import compression
from meshgate.runtime import config
from meshgate.v1 import sealed_pb2
from tests.support.fixtures import tokens

EXAMPLES = int(os.environ.get("MESHGATE_FUZZ_EXAMPLES", "60"))
SHIPPED = Path(__file__).parents[3] / "deploy" / "config" / "gateway.toml"

fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def message_bytes(data: st.DataObject, example: Message) -> bytes:
    """Bytes like those of a message: the real ones cut, changed in places, or with others about them."""
    good = bytearray(example.SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        if good:
            good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    return bytes(good[:cut]) + data.draw(st.binary(max_size=30))


@pytest.mark.parametrize("path", PUBLIC_ROUTES)
@fuzz
@given(data=st.data())
def test_first_messages(path: str, data: st.DataObject) -> None:
    route = PUBLIC_ROUTES[path]
    raw = data.draw(st.binary(max_size=200)) if data.draw(st.booleans()) else message_bytes(data, _example(route))
    try:
        found = request_info.read(route, raw)
    except errors.InvalidArgument:
        return
    except errors.Unimplemented as error:  # it begins as compressed messages do
        assert (error.reason, compression.is_compressed(raw)) == ("COMPRESSED", True)
        return
    assert found.first == raw


def _example(route: Route) -> Message:
    """A request with some text in it, where it has room for any."""
    message: Any = route.request_type()
    inner = message.request if "request" in message.DESCRIPTOR.fields_by_name else message
    for name in ("model", "prompt", "text"):
        field = inner.DESCRIPTOR.fields_by_name.get(name)
        if field is not None and field.type == field.TYPE_STRING:
            setattr(inner, name, "something to read")
    return cast(Message, message)


@pytest.mark.parametrize("path", SEALED_ROUTES)
@fuzz
@given(
    data=st.data(),
    method=st.sampled_from([*MODEL_ROUTES, *SEALED_ROUTES, "", "/x"]) | st.text(max_size=30),
    model=st.text(max_size=300),
)
def test_envelopes(path: str, data: st.DataObject, method: str, model: str) -> None:
    header = sealed_pb2.EnvelopeHeader(method=method.encode(errors="replace").decode(), model=_clean(model))
    envelope = sealed_pb2.Envelope(header=message_bytes(data, header), ciphertext=data.draw(st.binary(max_size=50)))
    outer: Any = PUBLIC_ROUTES[path].request_type
    try:
        found = request_info.read(PUBLIC_ROUTES[path], outer(envelope=envelope).SerializeToString())
    except errors.InvalidArgument:
        return
    except errors.Unimplemented as error:  # the header begins as compressed messages do
        assert (error.reason, compression.is_compressed(envelope.header)) == ("COMPRESSED", True)
        return
    assert found.route.path in MODEL_ROUTES


def _clean(text: str) -> str:
    """Without what UTF-8 can't hold."""
    return text.encode(errors="replace").decode()


@pytest.fixture(scope="module")
def jwks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    tokens.publish_all(path)
    return path


@fuzz
@given(data=st.data())
def test_authorizations(jwks: Path, data: st.DataObject) -> None:
    authenticator = tokens.authenticator(jwks, tokens.Clock())
    good = tokens.token()
    places = st.integers(0, len(good))
    kind = data.draw(st.sampled_from(["text", "cut", "changed", "assembled", "signed"]))
    if kind == "text":
        sent = data.draw(st.text(max_size=300))
    elif kind == "cut":
        sent = f"Bearer {good[: data.draw(places)]}"
    elif kind == "changed":
        place = data.draw(st.integers(0, len(good) - 1))
        sent = f"Bearer {good[:place]}{data.draw(st.characters())}{good[place + 1 :]}"
    elif kind == "assembled":
        sent = f"Bearer {tokens.assemble(data.draw(JSON), data.draw(JSON), data.draw(st.binary(max_size=80)))}"
    else:  # an issuer that signs nonsense
        sent = f"Bearer {tokens.sign({'alg': 'ES256', 'kid': 'ec'}, json.dumps(data.draw(JSON)).encode())}"
    try:
        principal = authenticator.authenticate(sent)
    except errors.Unauthenticated:
        return
    assert (principal.subject, sent) == ("bob", f"Bearer {good}")


@fuzz
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps({"keys": value}).encode()))
def test_key_sets(content: bytes) -> None:
    try:
        keyset.parse(content)
    except keyset.KeySetError as error:
        assert content.decode("latin-1") not in str(error) or len(content) < 4


@fuzz
@given(text=st.text(max_size=200))
def test_configuration_files_that_are_anything(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(config.ConfigError):
        config.load(path, GatewayConfig)


@fuzz
@given(data=st.data(), value=JSON)
def test_configurations_with_one_wrong_value(data: st.DataObject, value: Any) -> None:
    """Through the loader's own validation: an answer, or every problem by its key."""
    raw = tomllib.loads(SHIPPED.read_text())
    section = raw[data.draw(st.sampled_from([name for name, found in raw.items() if isinstance(found, dict)]))]
    section[data.draw(st.sampled_from(list(section)) | st.text(min_size=1, max_size=8))] = value
    try:
        GatewayConfig.model_validate(raw)
    except ValueError as error:
        assert str(error)


@fuzz
@given(st.data())
def test_error_details_of_a_service_that_lies(data: st.DataObject) -> None:
    good = status.to_proto(errors.LimitExceeded("no", retry_after=1.0, subject="tenant:acme", limit="x"), "0" * 32)
    failure = Failure(data.draw(st.sampled_from(list(grpc.StatusCode))), message_bytes(data, good))
    assert isinstance(status.from_rpc_error(failure), errors.MeshError)


class Failure(NamedTuple):
    """A call that failed with these details."""

    status: grpc.StatusCode
    raw: bytes

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str | None:
        return None

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ((status.DETAILS_KEY, self.raw),)
