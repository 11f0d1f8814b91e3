# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets: what is refused, how it is said, and that a key shows nowhere."""

from __future__ import annotations

import base64
import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from vdsmcinder.errors import SecretMalformed
from vdsmcinder.virt.secrets.secret import Secret, SecretSpec, UsageType

UUID = "12345678-1234-1234-1234-123456789abc"
KEY = b"\x01\x02the key that must not show\xff"
GOOD = {
    "uuid": UUID,
    "usageType": "ceph",
    "usageID": f"ovirt/{UUID}",
    "password": base64.b64encode(KEY).decode(),
}


def test_a_good_secret():
    spec = SecretSpec.from_params({**GOOD, "description": "key of <cinder>"}, 0)
    assert spec.value.reveal() == KEY
    xml = etree.fromstring(spec.xml())
    assert (xml.get("ephemeral"), xml.get("private")) == ("yes", "yes")
    assert xml.findtext("uuid") == UUID
    assert xml.findtext("description") == "key of <cinder>"
    assert xml.find("usage").get("type") == "ceph"
    assert xml.findtext("usage/name") == f"ovirt/{UUID}"


@pytest.mark.parametrize(
    ("usage_type", "element"), [("ceph", "name"), ("volume", "volume"), ("iscsi", "target")]
)
def test_each_usage_has_its_element(usage_type, element):
    spec = SecretSpec.from_params({**GOOD, "usageType": usage_type}, 0)
    assert etree.fromstring(spec.xml()).findtext(f"usage/{element}") == GOOD["usageID"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uuid": "x"}, "uuid"),
        ({"uuid": None}, "uuid"),
        ({"usageType": "tls"}, "usageType"),
        ({"usageID": "libvirt/other"}, "usageID"),
        ({"usageID": "ovirt/"}, "usageID"),
        ({"password": "not base64!"}, "password"),
        ({"password": ""}, "password"),
        ({"password": 7}, "password"),
        ({"description": 7}, "description"),
        ({"description": "\x00"}, "description"),
    ],
)
def test_what_is_refused_names_the_field_and_not_the_value(change, field):
    with pytest.raises(SecretMalformed) as error:
        SecretSpec.from_params({**GOOD, **change}, 3)
    assert error.value.code == 72
    assert f"secrets[3].{field}" in error.value.message
    assert GOOD["password"] not in error.value.message
    assert "not base64!" not in error.value.message


@pytest.mark.parametrize("field", ["uuid", "usageType", "usageID", "password"])
def test_a_missing_field_is_named(field):
    params = {k: v for k, v in GOOD.items() if k != field}
    with pytest.raises(SecretMalformed, match=rf"secrets\[0\]\.{field} is missing"):
        SecretSpec.from_params(params, 0)


@given(st.binary(min_size=4))
def test_a_key_shows_nowhere(key):
    secret = Secret(key)
    spec = SecretSpec(UUID, UsageType.CEPH, "ovirt/x", secret)
    assert str(secret) == repr(secret) == f"{secret}" == "********"
    assert "value=********" in repr(spec)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.copy(secret)
