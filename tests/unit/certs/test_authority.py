"""The development CA: what it makes verifies, says who it is, is kept while good, and its keys are nobody else's."""

from __future__ import annotations

import ipaddress
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

import certs
from certs import authority
from meshgate.rpc.channel import server_name

NOW = datetime.now(UTC)


def load(home: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((home / "certs" / f"{name}.pem").read_bytes())


def test_every_leaf_verifies_against_the_ca(tmp_path: Path) -> None:
    assert certs.ensure(tmp_path) == list(certs.NAMES)
    store = Store([load(tmp_path, "ca")])
    policy = PolicyBuilder().store(store).time(datetime.now(UTC))
    for name in certs.NAMES:
        policy.build_server_verifier(x509.DNSName(server_name(name))).verify(load(tmp_path, name), [])


def names_of(home: Path, name: str) -> x509.SubjectAlternativeName:
    return load(home, name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


PARTS = (*certs.NAMES, "stranger", "Generation", "EMBEDDING", "localhost", "generation.meshgate", "a.b", "127.0.0.1")


def test_no_two_leaves_have_a_name_in_common(tmp_path: Path) -> None:
    certs.ensure(tmp_path, PARTS)
    found = {part: {str(name.value).lower() for name in names_of(tmp_path, part)} for part in PARTS}
    spiffe = {part: {name.value for name in names_of(tmp_path, part) if "spiffe" in str(name.value)} for part in PARTS}
    for one in PARTS:
        assert spiffe[one] == {f"spiffe://meshgate.local/{one}"}
        for other in PARTS:
            shared = {name for name in found[one] & found[other] if not name.startswith("spiffe")}
            assert one == other or not shared


def test_this_machine_is_in_the_leaf_of_the_gateway_alone_but_by_choice(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    local = {"localhost", "127.0.0.1", "::1"}
    for name in certs.NAMES:
        assert bool(local & {str(each.value) for each in names_of(tmp_path, name)}) == (name == "gateway")
    assert certs.ensure(tmp_path, local=("gateway", "generation")) == ["generation"]
    assert local < {str(each.value) for each in names_of(tmp_path, "generation")}
    assert certs.ensure(tmp_path) == ["generation"]


def test_leaves_that_an_older_version_made_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(name: str, *, local: bool) -> x509.SubjectAlternativeName:
        uri = x509.UniformResourceIdentifier(f"spiffe://meshgate.local/{name}")
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return x509.SubjectAlternativeName([uri, x509.DNSName("localhost"), x509.DNSName(name), address])

    with monkeypatch.context() as patched:
        patched.setattr(authority, "_alternative_names", old)
        certs.ensure(tmp_path)
    ca = load(tmp_path, "ca").serial_number
    assert certs.ensure(tmp_path) == list(certs.NAMES)
    assert certs.ensure(tmp_path) == []
    assert load(tmp_path, "ca").serial_number == ca


def test_a_leaf_names_its_workload_once(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    names = load(tmp_path, "gateway").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://meshgate.local/gateway"]
    assert isinstance(load(tmp_path, "gateway").public_key(), ec.EllipticCurvePublicKey)


def test_keys_are_the_owners_alone(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    for key in (tmp_path / "certs").glob("*-key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    certs.ensure(tmp_path, now=NOW)
    before = load(tmp_path, "gateway").serial_number
    assert certs.ensure(tmp_path, now=NOW + timedelta(days=4)) == []
    assert load(tmp_path, "gateway").serial_number == before


def test_what_nears_its_end_is_renewed(tmp_path: Path) -> None:
    certs.ensure(tmp_path, now=NOW)
    assert certs.ensure(tmp_path, now=NOW + timedelta(days=5)) == list(certs.NAMES)


def test_renew_replaces_leaves_and_keeps_the_ca(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    before = load(tmp_path, "ca").serial_number
    assert certs.ensure(tmp_path, renew=True) == list(certs.NAMES)
    assert load(tmp_path, "ca").serial_number == before


@pytest.mark.parametrize("broken", ["gateway.pem", "gateway-key.pem"])
def test_what_is_broken_is_made_anew(tmp_path: Path, broken: str) -> None:
    certs.ensure(tmp_path)
    (tmp_path / "certs" / broken).write_text("not PEM")
    assert certs.ensure(tmp_path) == ["gateway"]


def test_leaves_of_another_ca_are_made_anew(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    (tmp_path / "certs" / "ca-key.pem").unlink()
    assert certs.ensure(tmp_path) == list(certs.NAMES)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ü", "a b", "../gateway", "a" * 64, "ca", "gateway-key"])
def test_a_name_that_a_spiffe_id_or_a_file_cannot_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="SPIFFE"):
        certs.ensure(tmp_path, ["gateway", name])
    assert list(tmp_path.iterdir()) == []


def test_a_leaf_of_another_name_is_made_anew(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    for ending in (".pem", "-key.pem"):
        (tmp_path / "certs" / f"embedding{ending}").replace(tmp_path / "certs" / f"gateway{ending}")
    assert certs.ensure(tmp_path, ["gateway"]) == ["gateway"]


def test_a_leaf_is_for_both_ends_and_for_signing_alone(tmp_path: Path) -> None:
    certs.ensure(tmp_path, now=NOW)
    leaf = load(tmp_path, "gateway")
    extensions = leaf.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert leaf.not_valid_before_utc <= NOW - timedelta(minutes=4)


def test_a_leaf_verifies_as_a_client_under_its_spiffe_id(tmp_path: Path) -> None:
    certs.ensure(tmp_path)
    verifier = PolicyBuilder().store(Store([load(tmp_path, "ca")])).time(datetime.now(UTC)).build_client_verifier()
    verified = verifier.verify(load(tmp_path, "embedding"), [])
    assert x509.UniformResourceIdentifier("spiffe://meshgate.local/embedding") in (verified.subjects or [])


def test_nothing_outlives_the_ca(tmp_path: Path) -> None:
    certs.ensure(tmp_path, now=NOW)
    end = load(tmp_path, "ca").not_valid_after_utc
    certs.ensure(tmp_path, now=end - timedelta(days=8), life=timedelta(days=90))
    assert load(tmp_path, "gateway").not_valid_after_utc <= load(tmp_path, "ca").not_valid_after_utc


def test_two_at_once_leave_one_ca(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: certs.ensure(tmp_path), range(8)))
    assert sorted(made) == [[]] * 7 + [list(certs.NAMES)]
    for name in certs.NAMES:
        load(tmp_path, name).verify_directly_issued_by(load(tmp_path, "ca"))
    assert not list((tmp_path / "certs").glob(".*"))
