# SPDX-License-Identifier: GPL-2.0-or-later
"""Roles: which of a caller's names decides, and how the configuration may write them."""

from __future__ import annotations

import datetime
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vdsmcinder import config
from vdsmcinder.rpc.access import Access, Role
from vdsmcinder.transport import identity, peer

# As ssl.getpeercert() gives them.
ALTERNATIVES = {
    "subjectAltName": (
        ("DNS", "Grafana.example.com"),
        ("URI", "spiffe://example.com/grafana"),
        ("email", "ops@example.com"),
        ("IP Address", "192.0.2.7"),
    ),
}
OWN_OID = "1.3.6.1.4.1.99999.1"
KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(*parts: list[tuple[str, str]]) -> bytes:
    """A certificate whose subject has these attributes, by dotted OID, in these parts."""
    subject = x509.Name(
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in part]
        )
        for part in parts
    )
    now = datetime.datetime(2026, 1, 1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(KEY, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


CN, ORG, OU, EMAIL = (
    oid.dotted_string
    for oid in (
        NameOID.COMMON_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.EMAIL_ADDRESS,
    )
)
DER = certificate(
    [(ORG, "Example, Inc.")],
    [(OU, "Ops"), (CN, "grafana")],
    [(EMAIL, "a@b")],
    [(OWN_OID, "x y")],
)
NAMES = (*identity.of_certificate(DER).names, *peer.alternative_names(ALTERNATIVES))


def role(roles, names=NAMES, default="admin"):
    return Access(config.Access(default, roles)).role(names)


@pytest.mark.parametrize(
    "key",
    [
        f"{OWN_OID}=x y,EMAIL=a@b,OU=Ops+CN=grafana,O=Example\\, Inc.",
        f"O=Example\\, Inc.,CN=grafana,OU=Ops,emailAddress=a@b,{OWN_OID}=x y",
        f'oid.{OWN_OID}=X  Y, e=A@B; ou = ops + cn = GRAFANA , o = "example, inc."',
        'subject=O = "Example, Inc.", OU = Ops + CN = grafana, emailAddress = a@b, '
        f"{OWN_OID} = x y",
        f"/O=Example, Inc./OU=Ops/CN=grafana/emailAddress=a@b/{OWN_OID}=x y",
        f"2.5.4.3=#0c0767726166616e61,2.5.4.11=Ops,2.5.4.10=Example\\2C Inc.,E=a@b,{OWN_OID}=x y",
        f"subject: CN=grafana,OU=Ops,O=Example\\, Inc.,E=a@b,{OWN_OID}=x y",
        "grafana",
        "Grafana",
        "CN:grafana",
        "cn: grafana",
        "DNS:grafana.example.com",
        "dns:GRAFANA.example.com",
        "URI:spiffe://example.com/grafana",
        "email:ops@example.com",
        "ip:192.0.2.7",
    ],
)
def test_any_name_gives_a_role(key):
    assert role({key: "monitor"}) is Role.MONITOR


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("IP:2001:db8::7", "IP Address", "2001:DB8:0:0:0:0:0:7"),
        ("IP:2001:DB8:0:0::7", "IP Address", "2001:DB8:0:0:0:0:0:7\n"),
        ("DNS:Grafana.Example.com.", "DNS", "grafana.example.com"),
        ("DNS:grafana.example.com", "DNS", "Grafana.example.COM."),
        ("DNS:*.example.com", "DNS", "*.example.com"),
        ("URI:SPIFFE://Example.com/x", "URI", "spiffe://example.COM/x"),
        ("email:Ops@Example.com", "email", "ops@example.com"),
    ],
)
def test_alternative_names_are_compared_as_what_they_mean(key, kind, value):
    """With admin as default, a name that is not known again would be an admin's."""
    names = peer.alternative_names({"subjectAltName": ((kind, value),)})
    assert role({key: "none"}, names) is Role.NONE


@pytest.mark.parametrize("written", ["Grafana  Labs", "\uff47rafana labs", "CN:grafana labs"])
def test_common_names_are_compared_as_subjects_are(written):
    names = identity.of_certificate(certificate([(CN, "grafana labs ")])).names
    assert role({written: "none"}, names) is Role.NONE


@pytest.mark.parametrize(
    "key",
    [
        "grafana.example.com",
        "email:grafana@example.com",
        "CN=grafana",
        f"OU=Ops+CN=grafana,O=Example\\, Inc.,E=a@b,{OWN_OID}=other",
        f"OU=Ops+CN=grafana,O=Example\\, Inc.,E=a@b,{OWN_OID}=x y,C=US",
        "192.0.2.7",
        "URI:spiffe://example.com/Grafana",
    ],
)
def test_names_of_others_give_none(key):
    assert role({key: "monitor"}) is Role.ADMIN


@pytest.mark.parametrize(
    ("roles", "why"),
    [
        ({"CN=grafana,FOO=x": "monitor"}, "'FOO' is no attribute that is known; write its OID"),
        ({"CN=grafana,O": "monitor"}, "'O' is not of the form attribute=value"),
        ({"CN=": "monitor"}, "CN has no value"),
        ({"CN=a,": "monitor"}, "is not of the form"),
        ({'CN="a': "monitor"}, "a quotation mark is missing"),
        ({"CN=#zz,O=\\ff": "monitor"}, "cannot|codec|invalid"),
        ({"": "monitor"}, "it is empty"),
        ({"DNS:": "monitor"}, "it is empty"),
        ({"host: x": "monitor"}, "of names there are subject:, CN:, uid:, DNS:, URI:, email:"),
        ({"IP:192.0.2.07": "monitor"}, "certificates hold an IP address"),
        ({"IP:host1": "monitor"}, "certificates hold an IP address"),
        ({"DNS:bücher.example": "monitor"}, "a host name, with other letters as xn-- has them"),
        ({"DNS:a b": "monitor"}, "a host name"),
        ({"DNS:a..b": "monitor"}, "a host name"),
        ({"email:grafana": "monitor"}, "an address with one @"),
        ({"URI:grafana": "monitor"}, "a URI with its scheme"),
        ({"URI:http://a b": "monitor"}, "a URI with its scheme"),
        ({"IP:::1": "monitor", "IP:0:0:0:0:0:0:0:1": "admin"}, "is the same name with another"),
        ({"uid:grafana": "monitor"}, "a local user is given by number"),
        ({"uid:0": "monitor"}, "root and the daemon's own user are admin"),
        ({f"uid:{os.geteuid()}": "none"}, "root and the daemon's own user are admin"),
        ({"CN=a,O=b": "monitor", "o=B, cn=A": "admin"}, "is the same name with another role"),
    ],
)
def test_entries_that_nobody_can_match_are_refused(roles, why):
    with pytest.raises(config.ConfigError, match=why) as refused:
        role(roles)
    assert str(refused.value).startswith("access.roles: no client can match ")


def test_what_is_refused_leaves_the_roles_as_they_were():
    access = Access(config.Access(roles={"grafana": "monitor"}))
    with pytest.raises(config.ConfigError):
        access.load(config.Access("none", {"x=y": "admin"}))
    assert access.role(NAMES) is Role.MONITOR
    access.load(config.Access(roles={"grafana": "none"}))
    assert access.role(NAMES) is Role.NONE


def test_a_common_name_cannot_pass_for_an_alternative_name():
    names = identity.of_certificate(certificate([(CN, "DNS:grafana.example.com")])).names
    assert role({"DNS:grafana.example.com": "admin"}, names, "monitor") is Role.MONITOR
    assert role({"CN:DNS:grafana.example.com": "admin"}, names, "monitor") is Role.ADMIN


def test_a_value_cannot_pass_for_several_attributes():
    """Nor can a quotation mark or an escape end a value."""
    posing = certificate([(CN, "x,O=Example"), (ORG, "y")])
    assert role({"CN=x,O=Example,O=y": "admin"}, identity.of_certificate(posing).names, "none") is (
        Role.NONE
    )
    posing = certificate([(CN, f"a'+{ORG}='b")])
    assert role({"CN=a,O=b": "admin"}, identity.of_certificate(posing).names, "none") is Role.NONE


def test_the_subject_counts_before_the_common_name_and_that_before_others():
    subject = f"OU=Ops,CN=grafana,O=Example\\, Inc.,E=a@b,{OWN_OID}=x y"
    alternative = "DNS:grafana.example.com"
    assert role({"grafana": "admin", subject: "monitor"}) is Role.MONITOR
    assert role({alternative: "admin", "grafana": "monitor"}) is Role.MONITOR


def test_the_default_is_for_whoever_is_not_named():
    assert role({}) is Role.ADMIN
    assert role({}, default="none") is Role.NONE
    assert role({}, names=()) is Role.ADMIN


def test_roles_include_one_another():
    for lesser, greater in zip(list(Role), list(Role)[1:]):
        assert greater.includes(lesser) and greater.includes(greater)
        assert not lesser.includes(greater)


def test_root_and_the_daemons_user_are_admin_and_other_local_users_look():
    for uid in (0, os.geteuid()):
        assert role({}, (f"uid:{uid}",), "none") is Role.ADMIN
    assert role({}, ("uid:64001",), "none") is Role.MONITOR
    assert role({"uid:64001": "admin"}, ("uid:64001",)) is Role.ADMIN
    assert role({"uid:64001": "none"}, ("uid:64001",)) is Role.NONE


def test_what_is_no_certificate_has_no_names():
    with pytest.raises(identity.Unreadable, match="cannot be read"):
        identity.of_certificate(b"\x30\x03abc")


@pytest.mark.parametrize(
    ("value", "written"),
    [(" a ", "\\ a\\ "), ("#1", "\\#1"), ('x"<>;+', 'x\\"\\<\\>\\;\\+'), ("a b#", "a b#")],
)
def test_subjects_are_escaped_as_rfc_4514_says_and_read_back(value, written):
    assert peer.subject({"subject": ((("commonName", value),),)}) == f"CN={written}"
    names = identity.of_certificate(certificate([(CN, value)])).names
    assert role({f"CN={written}": "monitor"}, names) is Role.MONITOR
