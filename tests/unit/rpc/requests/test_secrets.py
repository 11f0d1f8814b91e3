# SPDX-License-Identifier: GPL-2.0-or-later
"""The lists of the secret verbs: what is refused of one refuses the whole of it."""

from __future__ import annotations

import base64

import pytest

from vdsmcinder.errors import SecretMalformed
from vdsmcinder.rpc.requests.secrets import read_secrets, read_uuids

UUID = "12345678-1234-1234-1234-123456789abc"
GOOD = {
    "uuid": UUID,
    "usageType": "ceph",
    "usageID": f"ovirt/{UUID}",
    "password": base64.b64encode(b"a key").decode(),
}


def test_secrets_come_in_their_order():
    other = {**GOOD, "uuid": UUID.replace("1", "2"), "usageID": "ovirt/other"}
    assert [spec.usage_id for spec in read_secrets([GOOD, other])] == [
        GOOD["usageID"],
        "ovirt/other",
    ]


def test_one_bad_secret_refuses_the_whole_list():
    with pytest.raises(SecretMalformed, match=r"secrets\[1\]\.password"):
        read_secrets([GOOD, {**GOOD, "password": "?"}])


@pytest.mark.parametrize("secret", ["x", None, ["uuid"]])
def test_a_secret_is_an_object(secret):
    with pytest.raises(SecretMalformed, match=r"secrets\[0\] must be an object"):
        read_secrets([secret])


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({**GOOD, "usageID": "ovirt/other"}, "uuid"),
        ({**GOOD, "uuid": UUID.replace("1", "2")}, "usageID"),
    ],
)
def test_a_secret_is_sent_once(second, field):
    with pytest.raises(SecretMalformed, match=rf"secrets\[1\]\.{field} repeats"):
        read_secrets([GOOD, second])


def test_uuids():
    assert read_uuids([UUID, UUID.upper()]) == {UUID}
    for none in ("x", 7, None):
        with pytest.raises(SecretMalformed, match=r"uuids\[1\] is not a UUID"):
            read_uuids([UUID, none])
