# SPDX-License-Identifier: GPL-2.0-or-later
"""The lists of the secret verbs: what is refused of one refuses the whole of it."""

from __future__ import annotations

import base64
import uuid
from types import SimpleNamespace

import pytest

from vdsmcinder.errors import SecretMalformed
from vdsmcinder.rpc.requests.secrets import read_secrets, read_uuids
from vdsmcinder.virt.secrets.secret import SecretSpec

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


class Counted(str):
    """Text that counts how often any such is compared."""

    __slots__ = ()
    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Counted.comparisons += 1
        return str.__eq__(self, other)


def test_a_long_list_is_not_compared_each_with_each(monkeypatch):
    def made(params, position):
        usage = SimpleNamespace(wire_name="ceph")
        return SimpleNamespace(uuid=Counted(params), usage_type=usage, usage_id=params)

    monkeypatch.setattr(SecretSpec, "from_params", made)
    count = 1000
    read_secrets([str(uuid.UUID(int=number)) for number in range(count)])
    assert Counted.comparisons < count
    with pytest.raises(SecretMalformed, match=r"secrets\[2\].uuid repeats that of secrets\[0\]"):
        read_secrets(["a", "b", "a"])


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
