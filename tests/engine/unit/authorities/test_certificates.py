# SPDX-License-Identifier: GPL-2.0-or-later
"""What is signed: for the names that the engine has, of keys that are strong, and no more of it."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from cinderengine.authorities import certificates
from cinderengine.authorities.certificates import Authority, Unit, Wish
from cinderengine.errors import Invalid


def request(key, name="somebody-else", names=("evil.example.com",)):
    """A certificate request that says all it can."""
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    built = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
    built = built.add_extension(alternatives, critical=False)
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return built.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority():
    return Authority.made("engine.example.com hosts CA", 3650)


def test_of_a_request_only_the_key_counts(authority):
    key = ec.generate_private_key(ec.SECP256R1())
    public = certificates.requested_key(request(key), "host h1")
    names = ["h1.example.com", "192.0.2.1", "2001:db8::1"]
    signed = authority.sign(Wish(Unit.DAEMON, names), public, 397)
    assert signed.subject.rfc4514_string() == "CN=h1.example.com,OU=vdsm-cinder,O=vdsm-cinder"
    assert certificates.names_of(signed) == names
    assert certificates.belong(signed, key)
    basic = signed.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert basic.ca is False
    assert authority.issued(signed)
    assert not Authority.made("engine.example.com hosts CA", 3650).issued(signed)


@pytest.mark.parametrize(
    ("unit", "uses"),
    [
        (Unit.LISTENER, {"serverAuth"}),
        (Unit.WEB, {"serverAuth"}),
        (Unit.ENGINE, {"clientAuth"}),
        (Unit.DAEMON, {"serverAuth", "clientAuth"}),
        (Unit.LIBVIRT, {"serverAuth", "clientAuth"}),
        (Unit.QEMU, {"serverAuth", "clientAuth"}),
    ],
)
def test_each_is_of_use_for_what_it_is_for(authority, unit, uses):
    signed = authority.sign(Wish(unit, ["h1"]), certificates.new_key().public_key(), 1)
    found = signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {use._name for use in found} == uses


def test_nothing_outlives_its_authority():
    authority = Authority.made("short", 10)
    signed = authority.sign(Wish(Unit.WEB, ["h1"]), certificates.new_key().public_key(), 397)
    assert certificates.ends(signed) == certificates.ends(authority.certificate)


def test_an_authority_that_is_renewed_stays_the_signer_of_what_it_signed(authority):
    signed = authority.sign(Wish(Unit.WEB, ["h1"]), certificates.new_key().public_key(), 1)
    renewed = authority.renewed(4000)
    assert renewed.issued(signed)
    assert certificates.ends(renewed.certificate) > certificates.ends(authority.certificate)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP192R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA 1024", "P-192", "Ed25519"],
)
def test_a_weak_key_is_refused(key):
    with pytest.raises(Invalid, match=r"host h1 is of a key that is too weak or not supported"):
        certificates.requested_key(request(key), "host h1")


def test_a_request_that_another_key_signed_is_refused():
    good = request(ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(x509.load_pem_x509_csr(good).public_bytes(serialization.Encoding.DER))
    # In the middle of what is signed: a letter of the common name.
    der[der.index(b"somebody-else")] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(Invalid, match="host h1 is not signed by its own key; make it anew"):
        certificates.requested_key(pem, "host h1")


@pytest.mark.parametrize("pem", [b"", b"hello", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request_is_refused(pem):
    with pytest.raises(Invalid, match="what host h1 sent is no certificate request"):
        certificates.requested_key(pem, "host h1")


@pytest.mark.parametrize(
    "name", ["a b", "", "-x", "x" * 64, "ü.example.com", "a/b", "*.example.com"]
)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(Invalid, match="neither a host name nor an IP address"):
        certificates.alternatives([name])


def test_a_long_name_is_cut_in_the_subject_alone(authority):
    name = f"{'a' * 60}.{'b' * 60}.example.com"
    signed = authority.sign(Wish(Unit.DAEMON, [name]), certificates.new_key().public_key(), 1)
    assert signed.subject.rfc4514_string() == f"CN={'a' * 60},OU=vdsm-cinder,O=vdsm-cinder"
    assert certificates.names_of(signed) == [name]
