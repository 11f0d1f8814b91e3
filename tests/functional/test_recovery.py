# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs outlive the daemon and libvirtd, and then all is known of them that was before. On host2.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_recovery.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter

import libvirt
import pytest

from lab.base import wait_until
from lab.engine import new_id
from lab.host.daemon import HostDaemon
from tests.functional.helpers import (
    absent_disk,
    ask,
    assert_writes,
    booted,
    destroyed_at_last,
    engine_on,
    guest_disks,
    hears,
    new_image,
    paths,
    refused,
    running,
    session_fixture,
    status,
)
from tests.functional.second import wait_logged
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import SessionLost

SECRETS_MISSING = "|host|secrets_missing|host2"

MANY, RECOVERED_S, PATIENCE = 100, 2.0, 3.0
RECOVERING = 99
DOMAIN = """
<domain type='qemu'>
  <name>many-{vm_id}</name>
  <uuid>{vm_id}</uuid>
  <metadata>
    <ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'>
      <ovirt-vm:vdsmCinder version='1'/>
    </ovirt-vm:vm>
  </metadata>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='network' device='disk'>
      <source protocol='rbd' name='volumes/{vm_id}'><host name='10.77.0.11' port='6789'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@session_fixture("module")
async def engine(lab):
    """An engine of a daemon on host2, whose secret is registered."""
    async with engine_on(lab, lab.hosts["host2"]) as engine:
        await engine.register_key()
        yield engine


@session_fixture("module")
async def vm(engine):
    """A VM whose guest is ready, with a disk that was plugged into it."""
    async with booted(engine) as machine:
        with new_image(engine) as image:
            drive = engine.disk(image)
            params = {"vmId": machine.id, "drive": drive}
            await engine.call("VM.hotplugDisk", vmID=machine.id, params=params)
            await hears(machine, "^disk vdb added")
            yield machine


@pytest.fixture
def empty(engine, image):
    """Makes descriptions of VMs with nothing to boot, which are up at once."""
    return lambda **changes: engine.flat(new_id(), engine.disk(image()), **changes)


async def seen(engine):
    """What engines see of each VM, without what moves on by itself."""
    infos = {i["vmId"]: i for i in await ask(engine, "Host.getVMFullList")}
    for info in infos.values():
        for disk in info["devices"]:
            del disk["apparentsize"], disk["truesize"]  # as sampled
    kept = ("status", "hash", "exitCode", "exitReason", "exitMessage", "pauseCode", "pid")
    for stats in await ask(engine, "Host.getAllVmStats"):
        infos[stats["vmId"]]["stats"] = {name: stats.get(name) for name in kept}
    return infos


async def end(engine, vm_id, how):
    """End a VM and wait until the engine was told."""
    if how == "by QEMU's death":
        pid = (await engine.call("VM.getInfo", vmID=vm_id))["pid"]
        engine.daemon.host.namespace.kill(pid, signal.SIGKILL)
    else:
        params = {"delay": 0, "message": "", "timeout": 1, "force": True}
        await engine.call("VM.shutdown", vmID=vm_id, **params)
    await ended(engine, vm_id)


async def ended(engine, vm_id):
    """Wait until the engine was told that a VM is Down, and libvirt knows why."""
    await engine.wait_status(vm_id, "Down")
    # What follows may be the daemon's end.
    dumped = "dumpxml", "--inactive", vm_id
    await asyncio.to_thread(
        wait_until, lambda: "exitReason" in engine.daemon.host.virsh(*dumped), "a record of it", 10
    )


@pytest.mark.usefixtures("keyed")
class TestDaemon:
    @pytest.mark.parametrize("how", [HostDaemon.stop, HostDaemon.kill], ids=["stopped", "killed"])
    async def test_vms_are_as_they_were(self, engine, vm, empty, how):
        async with (
            running(engine, empty()) as killed,
            running(engine, empty()) as shut_down,
            running(engine, empty()) as paused,
            destroyed_at_last(engine, new_id()) as never_up,
        ):
            await engine.call("VM.pause", vmID=paused)
            await end(engine, killed, "by QEMU's death")
            await end(engine, shut_down, "by request")
            await engine.create(engine.flat(never_up, absent_disk()))
            await ended(engine, never_up)
            before = await seen(engine)
            reasons = {vm_id: told["stats"]["exitReason"] for vm_id, told in before.items()}
            assert reasons == {vm.id: None, paused: None, killed: 2, shut_down: 6, never_up: 3}

            how(engine.daemon)
            engine.daemon.start()
            await engine.connect()
            after = await seen(engine)
            assert set(after) == set(before)
            assert after[never_up]["stats"] == before[never_up]["stats"]
            for vm_id in (vm.id, paused, killed, shut_down):
                assert after[vm_id] == before[vm_id]
            await assert_writes(engine, vm, "vda", vm.image, new_id())

    async def test_vms_are_worked_with_as_before(self, engine, vm, empty, image):
        async with running(engine, empty()) as vm_id:
            engine.daemon.restart()
            await engine.connect()
            await engine.call("VM.pause", vmID=vm_id)
            await engine.wait_status(vm_id, "Paused")
            await engine.call("VM.cont", vmID=vm_id)
            await engine.wait_status(vm_id, "Up")
            await engine.destroy(vm_id)
        disk = {"vmId": vm.id, "drive": engine.disk(image())}
        # Here no systemd keeps the key for the daemon, which asks for it.
        assert await missing(engine) == [engine.secret_id]
        with refused(45, "has not been given since the daemon started"):
            await engine.call("VM.hotplugDisk", vmID=vm.id, params=disk)
        await engine.register_key()
        assert await missing(engine) == []
        await engine.call("VM.hotplugDisk", vmID=vm.id, params=disk)
        await hears(vm, "^disk vdc added")
        await engine.call("VM.hotunplugDisk", vmID=vm.id, params=disk)
        assert set(await guest_disks(vm)) == {"vda", "vdb"}

    async def test_one_that_ended_meanwhile_is_down(self, engine, empty):
        async with running(engine, empty()) as vm_id:
            pid = (await engine.call("VM.getInfo", vmID=vm_id))["pid"]
            engine.daemon.kill()
            engine.daemon.host.namespace.end(pid, signal.SIGKILL)
            engine.daemon.start()
            await engine.connect()
            (stats,) = await ask(engine, "VM.getStats", vmID=vm_id)
            assert stats["status"] == "Down"
            assert (stats["exitCode"], stats["exitReason"]) == (1, 2)

    async def test_a_hundred_are_known_within_two_seconds(self, engine, many):
        daemon, seen = engine.daemon, Counter()
        daemon.stop()
        began = time.monotonic()
        daemon.launch()
        await engine.connect()
        while time.monotonic() - began < 30:
            try:
                listed = await engine.call("Host.getVMList", onlyUUID=True)
                break
            except RemoteError as e:
                seen[e.code] += 1
        took_s = time.monotonic() - began
        assert many <= set(listed)
        assert set(seen) <= {RECOVERING}
        # A machine that runs tests may be several times slower than one that runs VMs.
        assert took_s < RECOVERED_S * PATIENCE
        await asyncio.to_thread(
            wait_until, lambda: health(engine) == "ready", "the daemon to be ready", 30
        )

    @pytest.mark.parametrize("how", [HostDaemon.stop, HostDaemon.kill], ids=["stopped", "killed"])
    async def test_requests_under_way_are_cut_off_or_answered(self, engine, empty, image, how):
        async with running(engine, empty()) as vm_id:
            disk = {"vmId": vm_id, "drive": engine.disk(image())}
            await engine.call("VM.hotplugDisk", vmID=vm_id, params=disk)
            # There is no guest that lets go of it, so that the daemon waits.
            waiting = asyncio.create_task(engine.call("VM.hotunplugDisk", vmID=vm_id, params=disk))
            asked = f"VM.hotunplugDisk of VM {vm_id} called by"
            await asyncio.to_thread(wait_logged, engine.daemon, asked)
            assert not waiting.done()
            await asyncio.to_thread(how, engine.daemon)
            with pytest.raises((SessionLost, RemoteError)):
                await asyncio.wait_for(waiting, 1)
            engine.daemon.start()
            await engine.connect()
            assert set(await paths(engine, vm_id)) == {"vda", "vdb"}


@pytest.fixture
def many(engine):
    """A hundred VMs of ours that libvirt knows and does not run; their ids."""
    ids = {new_id() for _ in range(MANY)}
    with contextlib.closing(libvirt.open(engine.daemon.host.uri)) as connection:
        for vm_id in ids:
            connection.defineXML(DOMAIN.format(vm_id=vm_id))
        yield ids
        for vm_id in ids:
            connection.lookupByUUIDString(vm_id).undefine()


@session_fixture("function")
async def keyed(engine):
    """The engine registers its key: the restarts of the tests before may have lost it."""
    await engine.register_key()


@pytest.mark.usefixtures("keyed")
class TestLibvirtd:
    @pytest.fixture
    def host(self, engine, keyed):
        """host2, on which libvirtd crashes; it is back at the end, with its secret."""
        host = engine.daemon.host
        host.kill_libvirtd()
        wait_until(lambda: health(engine) == "degraded", "the daemon to notice", 30)
        return host

    async def test_goes_and_comes_back(self, engine, host, vm, empty):
        await refused_at_once(engine, vm, empty())
        await known_is_told(engine, vm)
        await assert_writes(engine, vm, "vda", vm.image, "crashed")

        await start_libvirtd(engine)
        assert await status(engine, vm.id) == "Up"
        await engine.call("VM.pause", vmID=vm.id)
        await engine.wait_status(vm.id, "Paused")
        await engine.call("VM.cont", vmID=vm.id)
        await engine.wait_status(vm.id, "Up")

        # It kept secrets in memory alone, and has been given them again.
        async with running(engine, empty()):
            assert set(await paths(engine, vm.id)) == {"vda", "vdb"}

    async def test_a_vm_that_died_meanwhile_is_told_as_down(self, engine, empty):
        async with running(engine, empty()) as vm_id:
            host, pid = engine.daemon.host, (await ask(engine, "VM.getInfo", vmID=vm_id))["pid"]
            host.kill_libvirtd()
            host.namespace.end(pid, signal.SIGKILL)
            await start_libvirtd(engine)
            told = await engine.wait_status(vm_id, "Down")
            assert (told["exitCode"], told["exitReason"]) == (1, 2)

    async def test_the_engine_is_asked_for_keys_that_both_have_lost(self, engine, vm, empty):
        """No systemd keeps them here, so they go with the daemon's process."""
        secret = engine.secret_id
        engine.daemon.kill()
        engine.daemon.host.kill_libvirtd()
        engine.daemon.launch()
        await engine.connect()
        engine.daemon.host.start_libvirtd()
        asked = await engine.session.wait_for_event(lambda e: e["method"] == SECRETS_MISSING, 60)
        assert asked["params"]["uuids"] == [secret]
        assert await missing(engine) == [secret]
        health = engine.daemon.health()
        assert (health["status"], health["ready"]) == ("degraded", True)
        (reason,) = health["reasons"]
        assert reason.startswith(f"secret {secret}, which {vm.name} need")
        with refused(9, secret, "Host.registerSecrets"):
            await engine.create(empty())

        await engine.register_key()
        told = await engine.session.wait_for_event(lambda e: e["method"] == SECRETS_MISSING, 60)
        assert told["params"]["uuids"] == []
        assert await missing(engine) == []
        assert engine.daemon.health()["status"] == "ready"


async def missing(engine):
    return (await ask(engine, "Host.getCapabilities"))["missingSecrets"]


async def refused_at_once(engine, vm, params):
    disk = {"vmId": vm.id, "drive": engine.disk("other")}
    calls = [
        ("VM.create", {"vmID": params["vmId"], "vmParams": params}),
        ("VM.pause", {"vmID": vm.id}),
        ("VM.reset", {"vmID": vm.id}),
        ("VM.destroy", {"vmID": vm.id}),
        ("VM.hotplugDisk", {"vmID": vm.id, "params": disk}),
        ("Host.registerSecrets", {"secrets": [], "clear": True}),
        ("Host.unregisterSecrets", {"uuids": [engine.secret_id]}),
        ("Host.getSecrets", {}),
    ]
    for verb, arguments in calls:
        with refused(40, "libvirt", "check that libvirtd runs"):
            await asyncio.wait_for(engine.call(verb, **arguments), 20)


async def known_is_told(engine, vm):
    for verb in ("ping", "ping2", "getStats", "getAllVmStats", "getHardwareInfo"):
        await ask(engine, f"Host.{verb}")
    assert await ask(engine, "Host.getVMList") == [{"vmId": vm.id, "status": "Up"}]
    assert vm.id in await ask(engine, "Host.dumpxmls")
    assert set(await paths(engine, vm.id)) == {"vda", "vdb"}


def health(engine):
    return engine.daemon.health()["status"]


async def start_libvirtd(engine):
    engine.daemon.host.start_libvirtd()
    await asyncio.to_thread(wait_until, lambda: health(engine) == "ready", "libvirt again", 30)
