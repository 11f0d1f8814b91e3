# SPDX-License-Identifier: GPL-2.0-or-later
"""What GET /metrics and GET /health tell of a daemon that runs a VM on a Ceph disk.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_metrics.py`.
"""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from lab.base import wait_until
from lab.engine import Engine, new_id
from lab.guest.domains import console_of, disk_xml
from tests.functional.second import metrics, second_daemon

in_session = pytest_asyncio.fixture(scope="module", loop_scope="session")
pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def watched(lab):
    """A daemon that nobody else uses, so that its counters are this module's."""
    with second_daemon(lab, "watched", {"rpc": {"validate_results": True}}) as daemon:
        yield daemon


@in_session
async def engine_of_watched(lab, watched):
    async with Engine(lab, watched) as engine:
        await engine.register_key()
        yield engine
        await engine.call("Host.registerSecrets", secrets=[], clear=True)


@pytest.fixture
def told(watched):
    return lambda: metrics(watched)


async def test_a_vm_its_disk_and_its_key_are_told_of(lab, watched, engine_of_watched, image, told):
    engine, vm_id, disk = engine_of_watched, new_id(), image()
    before = told()
    assert before["secrets",] == 1
    assert before["vms", "Up"] == 0
    params = engine.document(vm_id, disk_xml(lab.ceph, disk, "vda", engine.secret_id))
    await engine.run(params)

    def written() -> float:
        return told().get(("vm_disk_written_bytes_total", "vda", vm_id), 0)

    def write_in_guest() -> None:
        with console_of(watched.host, f"vm-{vm_id}") as console:
            console.wait_for("^ready")
            console.write("vda", 8, 4, "metrics")
        wait_until(lambda: written() >= 4 * 2**20, "the sample after the guest wrote", 60)

    await asyncio.to_thread(write_in_guest)
    up = told()
    assert up["vms", "Up"] == 1
    assert up["vm_info", f"vm-{vm_id}", vm_id] == 1
    assert up["vm_responsive", vm_id] == 1
    assert up["vm_disk_capacity_bytes", "vda", vm_id] == 64 * 2**20
    assert up["vm_disk_writes_total", "vda", vm_id] >= 4
    assert up["vm_cpu_seconds_total", vm_id] > 0
    assert up["events_sent_total", "stomp"] > before["events_sent_total", "stomp"]
    assert up["requests_total", "ok", "VM.create"] == 1
    assert up["libvirt_calls_total", "collect", "ok"] >= 1

    await engine.destroy(vm_id)
    after = told()
    assert after["vms", "Up"] == 0
    assert ("vm_info", f"vm-{vm_id}", vm_id) not in after


async def test_refused_requests_are_told_of_by_code(engine_of_watched, told):
    with pytest.raises(Exception, match="there is no VM"):
        await engine_of_watched.call("VM.reset", vmID=new_id())
    with pytest.raises(Exception, match="There is no verb"):
        await engine_of_watched.call("VM.rest", vmID=new_id())
    found = told()
    assert found["requests_total", "1", "VM.reset"] == 1
    assert found["requests_refused_total", "-32601"] == 1


async def test_a_libvirtd_that_is_gone_is_told_of(lab, watched, told):
    host = watched.host
    well = {"status": "ready", "ready": True, "reasons": [], "warnings": []}
    assert watched.health() == well
    assert told()["healthy",] == 1
    secrets = told()["secrets",]
    host.stop_libvirtd()
    try:
        await asyncio.to_thread(
            wait_until, lambda: told()["libvirt_up",] == 0, "the loss of libvirtd to be seen", 60
        )
        health = watched.health()
        assert (health["status"], health["ready"]) == ("degraded", False)
        assert "cannot be reached" in health["reasons"][0]
        assert ("secrets",) not in told()
    finally:
        host.start_libvirtd()
    ready = "the daemon to be ready again"
    await asyncio.to_thread(wait_until, lambda: watched.health()["ready"], ready, 60)
    # libvirtd forgets ephemeral secrets, and is given them again.
    assert told()["secrets",] == secrets
