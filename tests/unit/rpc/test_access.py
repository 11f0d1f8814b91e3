# SPDX-License-Identifier: GPL-2.0-or-later
"""Roles: which of a caller's names decides, and how the configuration may write them."""

from __future__ import annotations

import os

import pytest

from vdsmcinder import config
from vdsmcinder.rpc.access import Access, Role
from vdsmcinder.transport import peer

# As ssl.getpeercert() gives it; the general part of a subject comes first.
CERTIFICATE = {
    "subject": (
        (("organizationName", "Example, Inc."),),
        (("organizationalUnitName", "ops"), ("commonName", "grafana")),
    ),
    "subjectAltName": (
        ("DNS", "Grafana.example.com"),
        ("URI", "spiffe://example.com/grafana"),
        ("email", "ops@example.com"),
        ("IP Address", "192.0.2.7"),
    ),
}
NAMES = peer.names_of(CERTIFICATE)


def role(roles, names=NAMES, default="admin"):
    return Access(config.Access(default, roles)).role(names)


def test_the_names_of_a_certificate():
    assert NAMES == (
        "subject:OU=ops+CN=grafana,O=Example\\, Inc.",
        "CN:grafana",
        "DNS:grafana.example.com",
        "URI:spiffe://example.com/grafana",
        "email:ops@example.com",
    )


@pytest.mark.parametrize(
    "key",
    [
        "OU=ops+CN=grafana,O=Example\\, Inc.",
        "ou=ops + cn=grafana, o=Example\\, Inc.",
        "grafana",
        "CN:grafana",
        "cn: grafana",
        "DNS:grafana.example.com",
        "dns:GRAFANA.example.com",
        "URI:spiffe://example.com/grafana",
        "email:ops@example.com",
    ],
)
def test_any_name_gives_a_role(key):
    assert role({key: "monitor"}) is Role.MONITOR


@pytest.mark.parametrize(
    "key",
    [
        "Grafana",
        "grafana.example.com",
        "email:grafana",
        "CN=grafana",
        "O=Example\\, Inc.,OU=ops+CN=grafana",
        "192.0.2.7",
        "subject:grafana",
    ],
)
def test_names_of_other_kinds_give_none(key):
    assert role({key: "monitor"}) is Role.ADMIN


def test_a_common_name_cannot_pass_for_an_alternative_name():
    posing = {"subject": ((("commonName", "DNS:grafana.example.com"),),)}
    names = peer.names_of(posing)
    assert role({"DNS:grafana.example.com": "admin"}, names, "monitor") is Role.MONITOR


def test_the_subject_counts_before_the_common_name_and_that_before_others():
    subject, alternative = "OU=ops+CN=grafana,O=Example\\, Inc.", "DNS:grafana.example.com"
    assert role({"grafana": "admin", subject: "monitor"}) is Role.MONITOR
    assert role({alternative: "admin", "grafana": "monitor"}) is Role.MONITOR


def test_the_default_is_for_whoever_is_not_named():
    assert role({}) is Role.ADMIN
    assert role({}, default="monitor") is Role.MONITOR
    assert role({}, names=()) is Role.ADMIN


def test_root_and_the_daemons_user_are_admin_and_other_local_users_look():
    for uid in (0, os.geteuid()):
        assert role({}, (f"uid:{uid}",), "monitor") is Role.ADMIN
    assert role({"uid:0": "monitor"}, ("uid:0",)) is Role.ADMIN
    assert role({}, ("uid:64001",)) is Role.MONITOR
    assert role({"uid:64001": "admin"}, ("uid:64001",)) is Role.ADMIN


def test_other_roles_come_into_force_at_once():
    access = Access(config.Access())
    access.load(config.Access(roles={"grafana": "monitor"}))
    assert access.role(NAMES) is Role.MONITOR


@pytest.mark.parametrize(
    ("value", "written"),
    [(" a ", "\\ a\\ "), ("#1", "\\#1"), ('x"<>;+', 'x\\"\\<\\>\\;\\+'), ("a b#", "a b#")],
)
def test_subjects_are_escaped_as_rfc_4514_says(value, written):
    assert peer.subject({"subject": ((("commonName", value),),)}) == f"CN={written}"
