# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that has all that a VM may have, and what of it is there on the other host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from lab.engine import new_id
from lab.migrating_vm import Traveller
from tests.functional import vnc
from tests.functional.guests import display
from tests.functional.helpers import (
    ask,
    eventually,
    new_image,
    refused,
    running,
    session_fixture,
    status,
)
from tests.functional.two_hosts import SLOW, host2, where

pytestmark = pytest.mark.asyncio(loop_scope="session")

BRIDGE = "vms0"
NIC = {
    "type": "interface",
    "device": "bridge",
    "network": BRIDGE,
    "macAddr": "52:54:00:77:00:21",
    "nicModel": "pv",
}
CD = {"type": "disk", "device": "cdrom", "iface": "sata", "index": "2", "path": ""}
WATCHDOG = {
    "type": "watchdog",
    "device": "watchdog",
    "specParams": {"model": "i6300esb", "action": "none"},
}
# What is another on each host, or changes all the time.
STATS_OF_THE_HOST = {
    *("statusTime", "elapsedTime", "hash", "pid", "cpuUser", "cpuSys", "cpuUsage", "memUsage"),
    *("memoryStats", "disks", "network", "displayInfo", "displayIp", "displayPort"),
}


@session_fixture("module")
async def elsewhere(lab, engine):
    """An engine of the daemon on host2."""
    async with host2(lab, engine, "whole", {}) as other:
        yield other


@pytest.fixture(scope="module")
def bridges(engine, elsewhere):
    """The VM's network, on both hosts."""
    hosts = [other.daemon.host for other in (engine, elsewhere)]
    for host in hosts:
        host.run(["ip", "link", "add", BRIDGE, "up", "type", "bridge"])
    yield
    for host in hosts:
        host.run(["ip", "link", "del", BRIDGE])


class WithDisk(Traveller):
    """Has a disk that was plugged while it ran."""

    added: Mapping[str, Any]


@session_fixture("module")
async def vm(engine, elsewhere, bridges):
    """It was given a disk, a processor, limits and less memory while it runs, and lost a disk."""
    with new_image(engine) as gone, new_image(engine) as added:
        there_first = engine.disk(gone)
        devices = (there_first, CD, NIC, WATCHDOG, display(engine))
        about = {"maxVCpus": "4", "custom": {"colour": "blue"}, "timeOffset": "-3600"}
        vm = WithDisk((engine, elsewhere), *devices, **about)
        async with vm:
            plugged = {"vmId": vm.id, "drive": engine.disk(added)}
            await call(vm, "hotplugDisk", params=plugged)
            await call(vm, "hotunplugDisk", params={"vmId": vm.id, "drive": there_first})
            await call(vm, "setNumberOfCpus", numberOfCpus=2)
            await call(vm, "setBalloonTarget", target=200 * 1024)
            tunables = [{"name": "vda", "ioTune": {"read_iops_sec": 700}}]
            await call(vm, "setIoTune", tunables=tunables)
            vm.added = plugged
            yield vm


async def call(vm, verb, **params):
    """Call a verb of VM.* on it, on the host that it is on."""
    return await ask(vm.here, f"VM.{verb}", vmID=vm.id, **params)


async def stats(vm):
    """Its statistics, from the first sample that has all."""

    async def sampled():
        (found,) = await call(vm, "getStats")
        settled = found.get("balloonInfo", {}).get("balloon_cur") == str(200 * 1024)
        return found if settled and found["network"] and "memoryStats" in found else None

    return await eventually(sampled, "a sample of all that it has")


async def test_what_is_told_of_it_is_the_same_there(vm):
    before, defined = await stats(vm), await call(vm, "getInfo")
    await vm.go()
    after, info = await stats(vm), await call(vm, "getInfo")
    assert set(after) == set(before)
    assert {n: v for n, v in after.items() if n not in STATS_OF_THE_HOST} == {
        n: v for n, v in before.items() if n not in STATS_OF_THE_HOST
    }
    host = vm.here.daemon.host
    assert after["displayInfo"][0]["ipAddress"] == after["displayIp"] == host.address
    assert host.run(["cat", f"/run/libvirt/qemu/{after['vmName']}.pid"]).strip() == after["pid"]
    assert set(after["disks"]) == set(before["disks"])
    for target, disk in after["disks"].items():
        for name in ("apparentsize", "imageID"):
            assert disk.get(name) == before["disks"][target].get(name)
    (nic,) = after["network"].values()
    assert nic["macAddr"] == NIC["macAddr"]
    for one in (defined, info):
        for disk in one["devices"]:
            del disk["truesize"]
        for name in ("pid", "displayIp", "displayPort"):
            del one[name]
    assert info == defined


async def test_it_runs_since_it_was_started(vm):
    """Also where it came to, and when the daemon there has restarted."""

    async def has_run(seconds):
        (found,) = await call(vm, "getStats")
        return int(found["elapsedTime"]) >= seconds

    await eventually(lambda: has_run(5), "it to have run for some time")
    before_s = int((await stats(vm))["elapsedTime"])
    await vm.go()
    assert await has_run(before_s)
    vm.here.daemon.restart()
    await vm.here.connect()
    # The daemon may be that of all tests; without systemd the key's value went with its process.
    await vm.here.register_key()
    assert await has_run(before_s)


async def test_a_host_that_lacks_its_network_or_has_its_name(vm):
    other = vm.there.daemon.host
    other.run(["ip", "link", "del", BRIDGE])
    with refused(12, f"NIC {NIC['macAddr']} on bridge {BRIDGE}, which this host does not have"):
        await vm.here.call("VM.migrate", **where(vm.there, vm.id))
    other.run(["ip", "link", "add", BRIDGE, "up", "type", "bridge"])
    name = (await call(vm, "getInfo"))["vmName"]
    with new_image(vm.there) as image:
        twin = vm.there.flat(new_id(), vm.there.disk(image), vmName=name)
        async with running(vm.there, twin) as its_id:
            with refused(12, f"VM {its_id} has the same name, {name}"):
                await vm.here.call("VM.migrate", **where(vm.there, vm.id))
    assert await status(vm.here, vm.id) == "Up"


async def test_how_far_it_is_stands_in_its_statistics(vm):
    params = where(vm.there, vm.id, maxBandwidth=SLOW)
    await vm.here.session.call("VM.migrate", params, "flow-of-a-move")
    # Which call of the engine's it comes of stands in both logs.
    for engine in (vm.here, vm.there):
        assert f"[flow flow-of-a-move] [vm {vm.id}]" in engine.daemon.log.read_text()
    (leaving,), (coming,) = [
        await ask(engine, "VM.getStats", vmID=vm.id) for engine in (vm.here, vm.there)
    ]
    assert 0 <= leaving["migrationProgress"] < 100
    assert "migrationProgress" not in coming
    await call(vm, "migrateCancel")
    (stayed,) = await call(vm, "getStats")
    assert "migrationProgress" not in stayed


async def test_what_could_be_done_to_it_can_be_done_there(vm):
    ticket = {"password": "secret01", "existingConnAction": "keep"}
    await call(vm, "setTicket", ttl=300, **ticket)
    await vm.go()
    (door,) = (await stats(vm))["displayInfo"]
    address = door["ipAddress"], int(door["port"])
    assert vnc.opens(*address, "secret01")
    await call(vm, "setTicket", ttl=1, **ticket)

    async def agent():
        documents = await vm.here.call("Host.dumpxmls", vmList=[vm.id])
        return "state='connected'" in documents[vm.id]

    await eventually(agent, "libvirt to find the guest's agent")
    for verb, params in (
        ("freeze", {}),
        ("thaw", {}),
        ("setNumberOfCpus", {"numberOfCpus": 3}),
        ("setBalloonTarget", {"target": 220 * 1024}),
        ("changeCD", {"driveSpec": {"path": "", "iface": "sata", "index": "2"}}),
        ("hotunplugDisk", {"params": vm.added}),
        ("hotplugDisk", {"params": vm.added}),
        ("screenshot", {}),
    ):
        await call(vm, verb, **params)
    deadline = time.monotonic() + 30
    while vnc.opens(*address, "secret01"):
        assert time.monotonic() < deadline
