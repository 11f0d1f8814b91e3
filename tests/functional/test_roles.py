# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients of different certificates may do with a VM that runs.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_roles.py`.
"""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

from lab.base import run
from lab.engine import Engine, new_id
from lab.guest.domains import disk_xml
from tests.functional.second import client, second_daemon
from vdsmcinder.errors import RemoteError

in_session = pytest_asyncio.fixture(scope="module", loop_scope="session")
pytestmark = pytest.mark.asyncio(loop_scope="session")

# Each of these certificates is known to the configuration by another kind of name.
CLIENTS = {
    "by-subject": "DNS:somewhere.example.com",
    "by-cn": "DNS:elsewhere.example.com",
    "by-dns": "DNS:grafana.example.com",
    "by-uri": "URI:spiffe://example.com/grafana",
    "by-email": "email:ops@example.com",
}
ROLES = {
    "CN=by-subject,O=lab": "monitor",
    "by-cn": "monitor",
    "DNS:Grafana.example.com": "monitor",
    "URI:spiffe://example.com/grafana": "monitor",
    "email:ops@example.com": "monitor",
}


@pytest.fixture(scope="module")
def guarded(lab):
    with second_daemon(lab, "guarded", {"access": {"roles": ROLES}}) as daemon:
        for name, alternatives in CLIENTS.items():
            daemon.pki.issue_client(name, alternatives)
        yield daemon


@in_session
async def admin(lab, guarded):
    async with Engine(lab, guarded) as engine:
        await engine.register_key()
        yield engine
        await engine.call("Host.registerSecrets", secrets=[], clear=True)


@in_session
async def vm_id(lab, admin):
    vm_id, image = new_id(), f"volume-{new_id()}"
    lab.ceph.create_image(image, 32)
    await admin.run(admin.document(vm_id, disk_xml(lab.ceph, image, "vda", admin.secret_id)))
    yield vm_id
    await admin.destroy(vm_id)
    lab.ceph.remove_image(image)


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_monitor_sees_the_vm_and_cannot_touch_it(guarded, admin, vm_id, name):
    monitor = await client(guarded, name)
    (statistics,) = await monitor.call("VM.getStats", {"vmID": vm_id})
    assert statistics["status"] == "Up"
    for verb, params in (
        ("VM.destroy", {}),
        ("VM.pause", {}),
        ("VM.hotunplugDisk", {"params": {"drive": {"path": "volumes/x"}}}),
    ):
        with pytest.raises(RemoteError) as denied:
            await monitor.call(verb, {"vmID": vm_id, **params})
        assert denied.value.code == 75
        log = guarded.log.read_text()
        assert f"denied {verb} to CN={name},O=lab at " in log
    (statistics,) = await admin.call("VM.getStats", vmID=vm_id)
    assert statistics["status"] == "Up"
    await monitor.close()


async def test_a_monitor_hears_what_an_admin_does(guarded, admin, vm_id):
    monitor = await client(guarded, "by-cn")
    await admin.call("VM.pause", vmID=vm_id)
    await monitor.wait_for_event(lambda e: e["params"].get(vm_id, {}).get("status") == "Paused")
    await admin.call("VM.cont", vmID=vm_id)
    await monitor.close()


async def test_root_on_the_host_is_admin(guarded, vm_id):
    for verb, status in (("VM.pause", "Paused"), ("VM.cont", "Up")):
        command = guarded.command("--json", "call", verb, f"vmID={vm_id}")
        told = await asyncio.to_thread(run, command)
        assert json.loads(told)["status"] == status
