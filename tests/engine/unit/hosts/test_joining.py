# SPDX-License-Identifier: GPL-2.0-or-later
"""How a host joins: tokens, who may use them, and what is signed."""

from __future__ import annotations

import dataclasses
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cinderengine.errors import Conflict, Incomplete, Invalid, Unauthenticated
from cinderengine.hosts import joining
from cinderengine.hosts.joining import UNITS, Request, Token, Trust
from cinderengine.model.hosts import Host
from cinderengine.model.secret import Secret

NOW_MS = 1_800_000_000_000
FINGERPRINT = "ab" * 32
TRUST = Trust("CN=engine,O=vdsm-cinder", "clients' pem", "hosts' pem")


def csr(key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def sign(names, requests):
    """Certificates that say what was asked for."""
    return {unit: f"{unit} of {', '.join(names)}" for unit in requests}


TOKEN = Token.made(FINGERPRINT, NOW_MS)
HOST = TOKEN.given_to(Host("h1", "node1", "node1.example.com", "c1"))
OTHER = Host("h2", "node2", "node2.example.com", "c1")
REQUESTS = {unit: csr() for unit in UNITS}


def request(**changes) -> Request:
    plain = Request(TOKEN.text, ["node1", "192.0.2.1"], 54321, "hw1", REQUESTS)
    return dataclasses.replace(plain, **changes)


def join(asked=None, hosts=(OTHER, HOST), now_ms=NOW_MS, **more):
    return joining.join(asked or request(), hosts, TRUST, sign, now_ms=now_ms, **more)


def test_a_host_gets_its_certificates_and_whom_to_trust() -> None:
    answer = join()
    assert answer.as_sent() == {
        "host": {"id": "h1", "name": "node1", "address": "node1.example.com"},
        "engine": "CN=engine,O=vdsm-cinder",
        "clients_ca": "clients' pem",
        "hosts_ca": "hosts' pem",
        "certificates": {unit: f"{unit} of node1.example.com, node1, 192.0.2.1" for unit in UNITS},
    }
    assert answer.host.hardware_id == "hw1"
    assert re.fullmatch("[0-9a-f]{64}", answer.host.fingerprint)


def test_what_is_sent_is_read_again() -> None:
    assert Request.read(request().as_sent()) == request(names=("node1", "192.0.2.1"))


def test_a_token_is_kept_as_its_digest_alone_and_shown_nowhere() -> None:
    text = TOKEN.text.reveal()
    assert text not in repr(TOKEN) + repr(HOST) + repr(request())
    assert HOST.token_digest == joining.digest(text)
    assert joining.fingerprint_in(text) == FINGERPRINT
    assert joining.line("https://e", TOKEN) == f"vdsm-cinder join https://e {text}"
    assert Token.made(FINGERPRINT, NOW_MS).digest != TOKEN.digest


@pytest.mark.parametrize(
    "text",
    ["", "join1.", "join1.AAAA", TOKEN.text.reveal()[:-1], TOKEN.text.reveal() + "AAAA", "é"],
    ids=["nothing", "a beginning", "too short", "cut off", "too long", "not ASCII"],
)
def test_what_is_no_token_says_so(text) -> None:
    with pytest.raises(Invalid, match="no token of an engine"):
        joining.fingerprint_in(text)


@pytest.mark.parametrize(
    ("asked", "now_ms"),
    [
        (request(token=Token.made(FINGERPRINT, NOW_MS).text), NOW_MS),
        (request(token=Secret("")), NOW_MS),
        (request(), NOW_MS + joining.LIFE_MS),
    ],
)
def test_a_token_that_is_unknown_or_late_is_of_no_use(asked, now_ms) -> None:
    with pytest.raises(Unauthenticated, match="not good any more"):
        join(asked, now_ms=now_ms)


def test_a_token_serves_the_first_host_alone_and_that_one_again() -> None:
    joined = join().host
    assert join(hosts=[joined]).host == joined
    with pytest.raises(Conflict, match="used by another machine already"):
        join(request(requests={unit: csr() for unit in UNITS}), hosts=[joined])
    anew = Token.made(FINGERPRINT, NOW_MS)
    other = request(token=anew.text, requests={unit: csr() for unit in UNITS})
    assert join(other, hosts=[anew.given_to(joined)]).host.fingerprint != joined.fingerprint


def test_no_host_gets_another_ones_name_nor_the_engines() -> None:
    answer = join(
        request(names=["NODE2.example.com", "engine.example.com", "192.0.2.1"]),
        reserved=["engine.example.com"],
    )
    assert answer.certificates["qemu"] == "qemu of node1.example.com, 192.0.2.1"
    nameless = dataclasses.replace(HOST, address="")
    assert join(hosts=[nameless]).host.address == "node1"
    with pytest.raises(Invalid, match="not another's"):
        join(request(names=["node2.example.com"]), hosts=[OTHER, nameless])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"token": None}, Incomplete),
        ({"token": 7}, Invalid),
        ({"names": []}, Incomplete),
        ({"names": ["x" * 254]}, Invalid),
        ({"names": ["n"] * 33}, Invalid),
        ({"names": "node1"}, Invalid),
        ({"port": 0}, Invalid),
        ({"port": True}, Invalid),
        ({"port": "54321"}, Invalid),
        ({"hardware_id": "x" * 65}, Invalid),
        ({"requests": {"listener": "pem"}}, Invalid),
        ({"requests": dict.fromkeys(UNITS, "x" * 16385)}, Invalid),
        ({"requests": "pem"}, Invalid),
    ],
)
def test_what_cannot_be_read_is_refused(changes, error) -> None:
    with pytest.raises(error, match="use vdsm-cinder join"):
        Request.read({**request().as_sent(), **changes})


def test_no_object_and_no_request_for_a_certificate_are_refused() -> None:
    with pytest.raises(Invalid):
        Request.read([])
    with pytest.raises(Invalid, match="certificate request that cannot be read"):
        join(request(requests=dict.fromkeys(UNITS, b"pem")))
