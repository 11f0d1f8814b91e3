# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys in libvirt: registered, replaced and removed, and never anybody else's. On host2.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_secrets.py`.
"""

from __future__ import annotations

import base64
import os

import pytest
from lxml import etree

from lab.base import LabError
from lab.engine import new_id, secret_params
from tests.functional.helpers import (
    ask,
    engine_on,
    foreign_secret,
    paths,
    refused,
    running,
    session_fixture,
)
from tests.functional.leaks import new_key

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def host2(lab):
    return lab.hosts["host2"]


@session_fixture("module")
async def other_engine(lab, host2):
    """An engine of a daemon on host2, whose secrets are these tests' own."""
    async with engine_on(lab, host2) as engine:
        yield engine


@session_fixture("function")
async def engine(other_engine):
    """The engine, with no secret registered before and after."""
    await other_engine.call("Host.registerSecrets", secrets=[], clear=True)
    yield other_engine
    await other_engine.call("Host.registerSecrets", secrets=[], clear=True)


@pytest.fixture
def foreign(host2):
    """The uuid of a secret that an operator defined by hand."""
    with foreign_secret(host2) as uuid:
        yield uuid


def some_key():
    return base64.b64encode(os.urandom(28)).decode()


def secret(**changes):
    return {**secret_params(new_id(), some_key()), **changes}


async def register(engine, *secrets, **params):
    return await ask(engine, "Host.registerSecrets", secrets=list(secrets), **params)


async def listed(engine):
    """What the daemon lists: the usage id of each secret."""
    return {s["uuid"]: s["usageID"] for s in await ask(engine, "Host.getSecrets")}


def held(host):
    """What libvirt holds: the usage of each secret."""
    return dict(line.split(None, 1) for line in host.virsh("secret-list").splitlines())


class TestRegister:
    @pytest.mark.parametrize(
        ("usage_type", "element"), [("ceph", "name"), ("volume", "volume"), ("iscsi", "target")]
    )
    async def test_ephemeral_and_private(self, engine, host2, usage_type, element):
        ours = secret(usageType=usage_type, description="key of <cinder>")
        assert await register(engine, ours) is True
        found = etree.fromstring(host2.virsh("secret-dumpxml", ours["uuid"]))
        assert (found.get("ephemeral"), found.get("private")) == ("yes", "yes")
        assert found.findtext("description") == "key of <cinder>"
        assert found.find("usage").get("type") == usage_type
        assert found.findtext(f"usage/{element}") == ours["usageID"]
        with pytest.raises(LabError, match="private"):
            host2.virsh("secret-get-value", ours["uuid"])

    async def test_nothing_of_it_is_on_disk(self, engine, host2):
        ours = secret()
        await register(engine, ours)
        directory = host2.path("/etc/libvirt/secrets")
        assert not directory.exists() or list(directory.iterdir()) == []

    async def test_lists_ours_alone(self, engine, foreign):
        one, two = secret(), secret(usageType="volume")
        await register(engine, one, two)
        assert await listed(engine) == {s["uuid"]: s["usageID"] for s in (one, two)}

    async def test_again_changes_nothing(self, engine, host2):
        ours = secret()
        await register(engine, ours)
        before = held(host2)
        await register(engine, ours)
        assert held(host2) == before

    async def test_a_new_usage_id_replaces(self, engine, host2):
        old = secret()
        await register(engine, old)
        await register(engine, {**old, "usageID": "ovirt/renamed"})
        assert await listed(engine) == {old["uuid"]: "ovirt/renamed"}
        assert held(host2) == {old["uuid"]: "ceph ovirt/renamed"}

    async def test_a_new_uuid_replaces(self, engine):
        old = secret()
        await register(engine, old)
        new = {**old, "uuid": new_id()}
        await register(engine, new)
        assert await listed(engine) == {new["uuid"]: old["usageID"]}

    async def test_two_that_swap_their_usage_ids(self, engine):
        one, two = secret(), secret()
        await register(engine, one, two)
        swapped = [
            {**one, "usageID": two["usageID"]},
            {**two, "usageID": one["usageID"]},
        ]
        await register(engine, *swapped)
        assert await listed(engine) == {s["uuid"]: s["usageID"] for s in swapped}

    async def test_a_new_key_replaces(self, engine, lab, image):
        """The real one in place of a wrong one, and back: Ceph tells which one it was shown."""
        real = secret_params(engine.secret_id, lab.ceph.key)
        wrong = {**real, "password": new_key()}
        await register(engine, real)
        disk, second = engine.disk(image()), engine.disk(image())
        async with running(engine, engine.flat(new_id(), disk)) as vm_id:
            params = {"vmID": vm_id, "params": {"vmId": vm_id, "drive": second}}
            await register(engine, wrong)
            with refused(45, "or that user has another key; register", "Host.registerSecrets"):
                await engine.call("VM.hotplugDisk", **params)
            assert list(await paths(engine, vm_id)) == ["vda"]
            await register(engine, real)
            await engine.call("VM.hotplugDisk", **params)
            assert list(await paths(engine, vm_id)) == ["vda", "vdb"]


class TestRemove:
    async def test_clear_removes_ours_that_are_not_listed(self, engine, host2, foreign):
        kept, dropped, new = secret(), secret(), secret()
        await register(engine, kept, dropped)
        await register(engine, kept, new, clear=True)
        assert set(await listed(engine)) == {kept["uuid"], new["uuid"]}
        assert set(held(host2)) == {kept["uuid"], new["uuid"], foreign}

    async def test_without_clear_the_others_stay(self, engine):
        old, new = secret(), secret()
        await register(engine, old)
        await register(engine, new)
        assert set(await listed(engine)) == {old["uuid"], new["uuid"]}

    async def test_unregister(self, engine, host2, foreign):
        one, two = secret(), secret()
        await register(engine, one, two)
        uuids = [one["uuid"].upper(), new_id(), foreign]
        assert await ask(engine, "Host.unregisterSecrets", uuids=uuids) is True
        assert set(await listed(engine)) == {two["uuid"]}
        assert set(held(host2)) == {two["uuid"], foreign}

    async def test_unregister_nothing(self, engine):
        assert await ask(engine, "Host.unregisterSecrets", uuids=[]) is True

    async def test_what_is_no_uuid_is_refused_before_anything_is_removed(self, engine):
        ours = secret()
        await register(engine, ours)
        with refused(72, "uuids[1]"):
            await engine.call("Host.unregisterSecrets", uuids=[ours["uuid"], "all"])
        assert set(await listed(engine)) == {ours["uuid"]}


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"uuid": "1234"}, "uuid"),
            ({"uuid": None}, "uuid"),
            ({"usageType": "tls"}, "usageType"),
            ({"usageID": "client.cinder"}, "usageID"),
            ({"password": "this is no base64"}, "password"),
            ({"password": 12345678}, "password"),
            ({"password": ""}, "password"),
            ({"description": ["text"]}, "description"),
        ],
    )
    async def test_one_bad_field(self, engine, host2, change, field):
        """All of the list is validated before any of it is registered, or cleared."""
        kept, good, bad = secret(), secret(), secret(**change)
        await register(engine, kept)
        with refused(72, f"secrets[1].{field}", without=[str(v) for v in change.values() if v]):
            await register(engine, good, bad, clear=True)
        assert set(held(host2)) == {kept["uuid"]}

    @pytest.mark.parametrize("field", ["uuid", "usageType", "usageID", "password"])
    async def test_a_missing_field(self, engine, host2, field):
        incomplete = secret()
        del incomplete[field]
        with refused(72, f"secrets[1].{field}", "missing"):
            await register(engine, secret(), incomplete)
        assert held(host2) == {}

    async def test_what_is_no_object(self, engine, host2):
        with refused(72, "secrets[0]"):
            await register(engine, some_key())
        assert held(host2) == {}

    async def test_one_secret_twice(self, engine, host2):
        ours = secret()
        with refused(72, "secrets[1]", "repeats"):
            await register(engine, ours, ours)
        assert held(host2) == {}

    async def test_what_is_no_list(self, engine):
        with refused(-32602, "secrets", without=["AQDX"]):
            await engine.call("Host.registerSecrets", secrets={"password": "AQDX"})

    async def test_the_uuid_of_a_foreign_secret(self, engine, host2, foreign):
        """The fixture sees to it that the foreign one is as it was."""
        with refused(73, foreign, "libvirt"):
            await register(engine, secret(uuid=foreign))
        assert held(host2) == {foreign: f"ceph client.{foreign}"}
