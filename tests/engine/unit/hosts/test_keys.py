# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of a host: the difference, and its delivery to hosts that take them and that do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cinderengine.hosts.keys import OURS, Delivery, Difference, HostKey, difference
from cinderengine.model.secret import Secret
from vdsmcinder.errors import RemoteError

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
VALUE = "QVFEc2VjcmV0a2V5dmFsdWU="


def key(uuid: str, revision: int = 1) -> HostKey:
    return HostKey(uuid, Secret(VALUE), revision=revision)


class Libvirt:
    """A host's keyring as its verbs show it. refuses: the code for each uuid not taken."""

    def __init__(self, *uuids: str, refuses: Mapping[str, int] | None = None) -> None:
        self.secrets = {uuid: f"{OURS}{uuid}" for uuid in uuids}
        self.refuses = refuses or {}
        self.calls: list[str] = []

    async def call(self, verb: str, params: Mapping[str, Any]) -> Any:
        self.calls.append(verb)
        if verb == "Host.getSecrets":
            return [
                {"uuid": uuid, "usageID": usage, "usageType": "ceph"}
                for uuid, usage in self.secrets.items()
            ]
        if verb == "Host.registerSecrets":
            for secret in params["secrets"]:
                self._check(secret["uuid"])
            self.secrets |= {secret["uuid"]: secret["usageID"] for secret in params["secrets"]}
        else:
            for uuid in params["uuids"]:
                self._check(uuid)
                self.secrets.pop(uuid, None)
        return True

    def _check(self, uuid: str) -> None:
        if uuid in self.refuses:
            words = f"libvirt did not take {VALUE} for {uuid}"
            raise RemoteError(self.refuses[uuid], words, {"password": VALUE})


@pytest.mark.parametrize(
    ("wanted", "has", "register", "unregister"),
    [
        ([], {}, [], []),
        ([key(A)], {}, [A], []),
        ([key(A)], {A: 1}, [], []),
        ([key(A, 2)], {A: 1}, [A], []),
        ([key(A)], {A: None}, [A], []),
        ([], {A: None, B: 1}, [], [A, B]),
        ([key(B), key(A)], {B: 1, C: 1}, [A], [C]),
    ],
)
def test_the_difference(wanted, has, register, unregister) -> None:
    found = difference(wanted, has)
    assert ([one.uuid for one in found.register], found.unregister) == (register, unregister)
    assert bool(found) == bool(register or unregister)
    assert not Difference()


async def test_a_host_gets_what_it_lacks_and_gives_up_what_is_not_wanted() -> None:
    libvirt, delivery = Libvirt(C), Delivery("h")
    assert await delivery.deliver([key(A), key(B)], libvirt.call) == ""
    assert libvirt.secrets == {A: f"{OURS}{A}", B: f"{OURS}{B}"}


async def test_what_is_there_is_not_sent_again_until_it_changes_or_is_lost() -> None:
    libvirt, delivery = Libvirt(), Delivery("h")
    await delivery.deliver([key(A)], libvirt.call)
    libvirt.calls.clear()
    await delivery.deliver([key(A)], libvirt.call)
    assert libvirt.calls == ["Host.getSecrets"]
    await delivery.deliver([key(A, 2)], libvirt.call)
    assert libvirt.calls.count("Host.registerSecrets") == 1
    del libvirt.secrets[A]
    await delivery.deliver([key(A, 2)], libvirt.call)
    assert A in libvirt.secrets


async def test_what_was_there_before_a_new_session_is_sent_anew() -> None:
    libvirt, delivery = Libvirt(), Delivery("h")
    await delivery.deliver([key(A)], libvirt.call)
    delivery.forget()
    libvirt.calls.clear()
    await delivery.deliver([key(A)], libvirt.call)
    assert "Host.registerSecrets" in libvirt.calls


async def test_keys_that_somebody_registered_by_hand_stay() -> None:
    libvirt, delivery = Libvirt(), Delivery("h")
    libvirt.secrets[B] = f"ovirt/{B}"
    await delivery.deliver([], libvirt.call)
    assert libvirt.secrets == {B: f"ovirt/{B}"}


async def test_one_key_that_is_refused_keeps_no_other_from_the_host_and_is_told_without_value() -> (
    None
):
    libvirt, delivery = Libvirt(C, refuses={B: 73, C: 73}), Delivery("node7")
    missing = await delivery.deliver([key(A), key(B)], libvirt.call)
    assert A in libvirt.secrets
    assert sorted(delivery.refused) == [B, C]
    assert f"host node7 did not take authentication key {B}: libvirt did not take ***" in missing
    assert f"host node7 did not give up authentication key {C}" in missing
    assert VALUE not in repr(key(A))
    libvirt.refuses = {}
    assert await delivery.deliver([key(A), key(B)], libvirt.call) == ""
    assert delivery.refused == {}


@pytest.mark.parametrize("code", [40, 99, 1100])
async def test_a_host_that_says_later_has_refused_nothing(code: int) -> None:
    libvirt, delivery = Libvirt(refuses={A: code}), Delivery("h")
    with pytest.raises(RemoteError):
        await delivery.deliver([key(A), key(B)], libvirt.call)
    assert delivery.refused == {}
