# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs on Ceph disks: created in both forms, looked at, and brought through all of their states.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_vms.py`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import closing, contextmanager
from typing import Any

import libvirt
import pytest
from lxml import etree

from lab.base import wait_until
from lab.engine import new_id
from lab.guest.domains import disk_xml, pty_console
from lab.guest.image import pattern_checksum
from tests.functional.helpers import (
    ask,
    assert_writes,
    booted,
    destroyed_at_last,
    eventually,
    foreign_secret,
    guest_disks,
    hears,
    recorded_events,
    refused,
    running,
    session_fixture,
    status,
    told,
    within,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024
OURS = "{http://ovirt.org/vm/1.0}"


@session_fixture("module")
async def vm(engine):
    """A VM whose guest is ready; tests leave it Up."""
    async with booted(engine) as machine:
        yield machine


@pytest.fixture
def empty(engine, image):
    """Makes descriptions of VMs with nothing to boot: up at once, and deaf to the power button."""
    return lambda **changes: engine.flat(new_id(), engine.disk(image()), **changes)


def document(engine, image):
    return engine.document(new_id(), disk_xml(engine.lab.ceph, image, "vda", engine.secret_id))


def name_of(vm_id):
    """The name of a VM of Engine.flat."""
    return f"vm-{vm_id[:8]}"


def inactive_xml(host, name):
    """The persistent definition of a domain."""
    return etree.fromstring(host.virsh("dumpxml", "--inactive", name))


def domains(host):
    return host.virsh("list", "--all", "--uuid").split()


@contextmanager
def started_at(host):
    """When libvirt told that a domain started, by its name, on the monotonic clock."""
    times, done = {}, threading.Event()

    def note(_connection, domain, event, _detail, _):
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            times[domain.name()] = time.monotonic()

    def listen():
        while not done.is_set():
            libvirt.virEventRunDefaultImpl()

    libvirt.virEventRegisterDefaultImpl()
    # Without it the thread would wait for the next event before it sees that it is done.
    timer = libvirt.virEventAddTimeout(100, lambda *_: None, None)
    listener = threading.Thread(target=listen)
    with closing(libvirt.open(host.uri)) as connection:
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        callback = connection.domainEventRegisterAny(None, lifecycle, note, None)
        listener.start()
        try:
            yield times
        finally:
            connection.domainEventDeregisterAny(callback)
            done.set()
            listener.join()
            libvirt.virEventRemoveTimeout(timer)


class TestCreate:
    async def test_by_document(self, engine, host, image):
        disk = image()
        params = document(engine, disk)
        vm_id = params["vmId"]
        async with destroyed_at_last(engine, vm_id), recorded_events(engine) as events:
            reply = await ask(engine, "VM.create", vmID=vm_id, vmParams=params)
            assert (reply["vmId"], reply["status"]) == (vm_id, "WaitForLaunch")
            assert reply["devices"][0]["path"] == f"volumes/{disk}"
            await engine.wait_status(vm_id, "Up")
            assert vm_id in domains(host)
        assert told(events, vm_id) == ["Powering up", "Up"]

    async def test_by_description_which_boots_from_its_image(self, engine, host, lab, image):
        disk, second = image(64, lab.guest.boot_image), image()
        vm_id = new_id()
        disks = engine.disk(disk, bootOrder="1"), engine.disk(second, serial="second-disk")
        params = engine.flat(vm_id, *disks, vmName=f"flat-{vm_id}", launchPaused="true", smp="2")
        async with destroyed_at_last(engine, vm_id):
            await engine.create(params)
            told = await engine.wait_status(vm_id, "Paused")
            assert told["pauseCode"] == "NOERR"
            assert (await ask(engine, "VM.cont", vmID=vm_id))["status"] == "Up"
            await engine.wait_status(vm_id, "Up")

            with pty_console(host, host.virsh("ttyconsole", f"flat-{vm_id}")) as console:
                await asyncio.to_thread(console.wait_ready)
                assert set(await asyncio.to_thread(console.disks)) == {"vda", "vdb"}
                written = await asyncio.to_thread(console.write, "vdb", 1, 1, "flat")
            assert written == pattern_checksum(1, "flat") == lab.ceph.checksum(second, 1, 1)
            info = await ask(engine, "VM.getInfo", vmID=vm_id)
            assert (info["smp"], info["memSize"]) == (2, 256)

    async def test_up_is_told_within_a_second_of_libvirts_start(self, engine, host, empty):
        async def start():
            with started_at(host) as times:
                async with running(engine, empty()) as vm_id:
                    heard = time.monotonic()
            return heard - times[name_of(vm_id)]

        await within(1, start, "the event")

    async def test_one_that_exists_is_refused(self, engine, vm):
        with refused(4, vm.id, "Up", "destroy it first"):
            await engine.create(engine.flat(vm.id, engine.disk(vm.image)))
        assert await status(engine, vm.id) == "Up"

    async def test_what_the_guest_writes_is_on_ceph(self, engine, vm):
        await assert_writes(engine, vm, "vda", vm.image, "created")


class TestDomain:
    async def test_is_persistent_and_carries_our_mark(self, host, vm):
        domain = inactive_xml(host, vm.name)
        assert domain.findtext("uuid") == vm.id
        mark = domain.find(f"metadata/{OURS}vm/{OURS}vdsmCinder")
        assert mark is not None
        assert mark.get("version") == "1"

    async def test_names_all_monitors_and_the_secret_but_no_key(self, engine, host, lab, vm):
        for text in (host.virsh("dumpxml", "--security-info", vm.name), await dumped(engine, vm)):
            disk = etree.fromstring(text).find("devices/disk")
            monitors = [h.get("name") for h in disk.iterfind("source/host")]
            assert monitors == [m.address for m in lab.ceph.monitors]
            assert disk.find(".//auth/secret").get("uuid") == engine.secret_id
            assert lab.ceph.key not in text

    async def test_keeps_what_the_engine_noted_in_it(self, engine, host, empty):
        params = empty(custom={"color": "blue"}, launchPaused="true")
        async with destroyed_at_last(engine, params["vmId"]) as vm_id:
            await engine.create(params)
            await engine.wait_status(vm_id, "Paused")
            ours = inactive_xml(host, name_of(vm_id)).find(f"metadata/{OURS}vm")
            assert ours.findtext(f"{OURS}custom/{OURS}color") == "blue"
            assert ours.findtext(f"{OURS}launchPaused") == "true"
            assert (await ask(engine, "VM.getInfo", vmID=vm_id))["custom"] == {"color": "blue"}

    async def test_goes_with_the_vm(self, engine, host, empty):
        vm_id = await engine.run(empty())
        await engine.destroy(vm_id)
        assert vm_id not in domains(host)
        with refused(1, vm_id):
            await engine.call("VM.getInfo", vmID=vm_id)


async def dumped(engine, vm):
    return (await ask(engine, "Host.dumpxmls"))[vm.id]


class TestForeignDomain:
    """A domain that somebody else defined, whatever it looks like."""

    @pytest.fixture
    def foreign(self, host):
        vm_id = new_id()
        file = host.lab_dir / f"{vm_id}.xml"
        file.write_text(
            f"<domain type='qemu'><name>foreign-{vm_id}</name><uuid>{vm_id}</uuid>"
            "<memory unit='MiB'>32</memory><metadata>"
            "<vm xmlns='http://ovirt.org/vm/1.0'><clusterVersion>4.7</clusterVersion></vm>"
            "</metadata><os><type machine='q35'>hvm</type></os></domain>"
        )
        host.virsh("define", file)
        host.virsh("start", f"foreign-{vm_id}")
        yield vm_id
        if vm_id in host.virsh("list", "--uuid"):
            host.virsh("destroy", vm_id)
        host.virsh("undefine", vm_id)
        file.unlink()

    async def test_is_not_listed(self, engine, foreign):
        assert foreign not in await engine.call("Host.getVMList", onlyUUID=True)
        assert foreign not in {s["vmId"] for s in await engine.call("Host.getAllVmStats")}
        assert await engine.call("Host.getVMFullList", vmList=[foreign]) == []
        assert await engine.call("Host.dumpxmls", vmList=[foreign]) == {}

    async def test_is_not_touched(self, engine, host, foreign):
        before = host.virsh("dumpxml", "--inactive", foreign)
        verbs = ("destroy", "shutdown", "reset", "pause", "cont", "getInfo", "getStats")
        for verb in verbs:
            extra = {"delay": 0, "message": ""} if verb == "shutdown" else {}
            with refused(1, foreign):
                await engine.call(f"VM.{verb}", vmID=foreign, **extra)
        assert host.virsh("domstate", foreign) == "running"
        assert host.virsh("dumpxml", "--inactive", foreign) == before

    async def test_is_not_replaced(self, engine, host, foreign, image):
        params = engine.flat(foreign, engine.disk(image()))
        with refused(4, foreign, "did not define"):
            await engine.create(params)
        assert host.virsh("domstate", foreign) == "running"
        assert foreign not in await engine.call("Host.getVMList", onlyUUID=True)


class TestReads:
    async def test_info(self, engine, lab, vm):
        info = await ask(engine, "VM.getInfo", vmID=vm.id)
        assert (info["vmId"], info["vmName"], info["status"]) == (vm.id, vm.name, "Up")
        (disk,) = info["devices"]
        assert (disk["name"], disk["protocol"]) == ("vda", "rbd")
        assert [h["name"] for h in disk["hosts"]] == [m.address for m in lab.ceph.monitors]
        assert disk["auth"] == {"type": "ceph", "username": "cinder", "uuid": engine.secret_id}

    async def test_the_list_in_its_three_forms(self, engine, vm):
        short = {"vmId": vm.id, "status": "Up"}
        assert short in await ask(engine, "Host.getVMList")
        assert vm.id in await ask(engine, "Host.getVMList", onlyUUID=True)
        full = await ask(engine, "Host.getVMList", fullStatus=True, vmList=[vm.id])
        assert full == [await ask(engine, "VM.getInfo", vmID=vm.id)]
        by_position = await engine.session.call("Host.getVMList", [False, [vm.id], False])
        assert by_position == [short]

    async def test_a_list_passes_over_what_is_not_here(self, engine, vm):
        listed = await ask(engine, "Host.getVMList", vmList=[new_id(), vm.id], onlyUUID=True)
        assert listed == [vm.id]

    async def test_the_full_list(self, engine, vm):
        info = await ask(engine, "VM.getInfo", vmID=vm.id)
        assert await ask(engine, "Host.getVMFullList", vmList=[vm.id]) == [info]
        assert info in await ask(engine, "Host.getVMFullList")

    async def test_documents(self, engine, vm):
        documents = await ask(engine, "Host.dumpxmls", vmList=[vm.id])
        assert list(documents) == [vm.id]
        assert etree.fromstring(documents[vm.id]).findtext("name") == vm.name

    async def test_disk_statistics_while_the_guest_writes(self, engine, vm):
        before = await disk_stats(engine, vm)
        await asyncio.to_thread(vm.console.send, "hammer vda")

        async def busy():
            disk = await disk_stats(engine, vm)
            rates = disk["writeRate"], disk["writeLatency"], disk["flushLatency"]
            return all(float(rate) > 0 for rate in rates)

        await eventually(busy, "rates and latencies of writing")
        records = await asyncio.to_thread(vm.console.ask, "stop", r"^hammered vda (\d+)")
        written = int(before["writtenBytes"]) + 4096 * int(records[1])

        async def all_counted():
            disk = await disk_stats(engine, vm)
            return disk if int(disk["writtenBytes"]) == written else None

        after = await eventually(all_counted, f"{written} bytes to be counted")
        assert int(after["writeOps"]) >= int(before["writeOps"]) + int(records[1])
        assert int(after["apparentsize"]) == 64 * MIB
        assert after["readBytes"] == before["readBytes"]

    async def test_disk_statistics_when_the_guest_reads(self, engine, vm):
        before = await disk_stats(engine, vm)
        samples = []

        async def all_counted():
            disk = await disk_stats(engine, vm)
            samples.append((float(disk["readRate"]), int(disk["readLatency"])))
            return disk if int(disk["readBytes"]) == int(before["readBytes"]) + 8 * MIB else None

        # Looked at meanwhile: the next sample, in which nothing was read, tells of no rate.
        reading = asyncio.create_task(asyncio.to_thread(vm.console.checksum, "vda", 0, 8))
        after = await eventually(all_counted, "8 MiB to be counted")
        await reading
        assert int(after["readOps"]) >= int(before["readOps"]) + 8
        assert [max(values) > 0 for values in zip(*samples)] == [True, True]

    async def test_statistics_of_the_vm(self, engine, host, vm):
        (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
        assert (stats["vmId"], stats["status"], stats["monitorResponse"]) == (vm.id, "Up", "0")
        assert int(stats["elapsedTime"]) > 0
        assert host.namespace.has(int(stats["pid"]))
        assert int(stats["balloonInfo"]["balloon_cur"]) == 256 * 1024
        everyone = {s["vmId"]: s for s in await ask(engine, "Host.getAllVmStats")}
        assert everyone[vm.id]["hash"] == stats["hash"]

    async def test_capabilities(self, engine):
        found = await ask(engine, "Host.getCapabilities")
        librbd = found["packages2"]["librbd1"]
        assert librbd["version"]
        assert "release" in librbd
        assert int(found["memSize"]) > 0
        assert found["cpuCores"]

    async def test_statistics_of_the_host(self, engine, vm):
        stats = await ask(engine, "Host.getStats")
        assert stats["vmActive"] >= 1
        assert stats["vmCount"] >= stats["vmActive"]


async def disk_stats(engine, vm):
    (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
    return stats["disks"]["vda"]


class TestPause:
    async def test_pause_and_cont(self, engine, host, vm):
        async with recorded_events(engine) as events:
            assert (await ask(engine, "VM.pause", vmID=vm.id))["status"] == "Paused"
            assert (await engine.wait_status(vm.id, "Paused"))["pauseCode"] == "NOERR"
            assert host.virsh("domstate", vm.name) == "paused"
            assert await status(engine, vm.id) == "Paused"

            assert (await ask(engine, "VM.cont", vmID=vm.id))["status"] == "Up"
            await engine.wait_status(vm.id, "Up")
            await guest_disks(vm)
        assert told(events, vm.id) == ["Paused", "Up"]

    async def test_cont_of_one_that_runs_changes_nothing(self, engine, vm):
        async with recorded_events(engine) as events:
            assert (await ask(engine, "VM.cont", vmID=vm.id))["status"] == "Up"
        assert told(events, vm.id) == []

    async def test_a_paused_guest_cannot_be_asked_to_shut_down(self, engine, vm):
        await engine.call("VM.pause", vmID=vm.id)
        with refused(75, vm.id, "Paused", "VM.cont"):
            await shut_down(engine, vm.id)
        assert await status(engine, vm.id) == "Paused"
        await engine.call("VM.cont", vmID=vm.id)


class TestReboot:
    async def test_reset(self, engine, vm):
        async with recorded_events(engine) as events:
            assert await ask(engine, "VM.reset", vmID=vm.id) is True
            await hears(vm, "^ready")
        assert told(events, vm.id) == []
        assert await status(engine, vm.id) == "Up"

    async def test_reboot_by_the_power_button(self, engine, vm):
        async with recorded_events(engine) as events:
            await shut_down(engine, vm.id, reboot=True)
            await hears(vm, "^power button")
            await hears(vm, "^ready")
        assert told(events, vm.id) == ["RebootInProgress", "Up"]


class TestEnd:
    async def test_by_the_power_button(self, engine, host):
        async with booted(engine) as vm:
            async with recorded_events(engine) as events:
                await shut_down(engine, vm.id)
                await hears(vm, "^power button")
                end = await engine.wait_status(vm.id, "Down")
            assert told(events, vm.id) == ["Powering down", "Down"]
            assert (end["exitCode"], end["exitReason"]) == (0, 6)

            (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
            assert {name: stats[name] for name in end if name != "hash"} == without_hash(end)
            assert {"vmId": vm.id, "status": "Down"} in await ask(engine, "Host.getVMList")
            assert vm.id in domains(host)
            await refuses_what_needs_a_running_vm(engine, vm.id)
            await engine.destroy(vm.id)
            assert vm.id not in domains(host)

    async def test_from_inside_the_guest(self, engine):
        async with booted(engine) as vm:
            async with recorded_events(engine) as events:
                await asyncio.to_thread(vm.console.send, "poweroff")
                end = await engine.wait_status(vm.id, "Down")
            assert told(events, vm.id) == ["Powering down", "Down"]
            assert (end["exitCode"], end["exitReason"]) == (0, 7)

    async def test_a_guest_that_ignores_the_button_runs_on(self, engine, empty):
        async with running(engine, empty()) as vm_id:
            async with recorded_events(engine) as events:
                await shut_down(engine, vm_id, timeout=1)
                await engine.wait_status(vm_id, "Up")
            assert told(events, vm_id) == ["Powering down", "Up"]

    async def test_a_guest_that_ignores_the_button_is_ended_by_force(self, engine, empty):
        async with running(engine, empty()) as vm_id:
            await shut_down(engine, vm_id, timeout=1, force=True)
            end = await engine.wait_status(vm_id, "Down")
            assert (end["exitCode"], end["exitReason"]) == (0, 6)

    async def test_qemu_is_killed(self, engine, host, empty):
        async with running(engine, empty()) as vm_id:
            pid = (await ask(engine, "VM.getInfo", vmID=vm_id))["pid"]
            async with recorded_events(engine) as events:
                host.namespace.kill(pid, signal.SIGKILL)
                end = await engine.wait_status(vm_id, "Down")
            assert told(events, vm_id) == ["Down"]
            assert (end["exitCode"], end["exitReason"]) == (1, 2)
            assert "QEMU" in end["exitMessage"]

    async def test_destroy_while_it_runs(self, engine, host, empty):
        async with recorded_events(engine) as events:
            vm_id = await engine.run(empty())
            pid = (await ask(engine, "VM.getInfo", vmID=vm_id))["pid"]
            assert await ask(engine, "VM.destroy", vmID=vm_id) is True
        assert told(events, vm_id)[-1] == "Down"
        assert events[-1]["params"][vm_id]["exitReason"] == 6
        assert vm_id not in domains(host)
        assert not host.namespace.has(pid)

    async def test_destroy_right_after_create(self, engine, host, empty):
        params = empty()
        async with recorded_events(engine) as events:
            await engine.create(params)
            await engine.destroy(params["vmId"])
        assert told(events, params["vmId"])[-1] == "Down"
        assert events[-1]["params"][params["vmId"]]["exitReason"] == 10
        assert params["vmId"] not in domains(host)
        assert params["vmId"] not in await engine.call("Host.getVMList", onlyUUID=True)

    async def test_destroy_while_qemu_waits_for_ceph(self, engine, host, lab, empty):
        """It gets that far with a key that the daemon does not know, and so cannot check with."""
        params = {**empty(), "allowUnchecked": True}
        with foreign_secret(host, lab.ceph.key) as uuid:
            for device in params["devices"]:
                device["auth"]["uuid"] = uuid
            lab.ceph.freeze_osd()
            try:
                await engine.create(params)
                name = name_of(params["vmId"])
                await asyncio.to_thread(
                    wait_until, lambda: qemu_of(host, name), "QEMU to start", 30
                )
                await engine.destroy(params["vmId"])
            finally:
                lab.ceph.thaw_osd()
        end = await engine.wait_status(params["vmId"], "Down")
        assert (end["exitCode"], end["exitReason"]) == (0, 10)
        assert params["vmId"] not in domains(host)
        assert not qemu_of(host, name)


async def shut_down(engine, vm_id, **options):
    assert await ask(engine, "VM.shutdown", vmID=vm_id, **{"delay": 0, "message": "", **options})


async def refuses_what_needs_a_running_vm(engine, vm_id):
    disk = {"vmId": vm_id, "drive": {"path": "volumes/none"}}
    calls: dict[str, dict[str, Any]] = {
        "shutdown": {"delay": 0, "message": ""},
        "reset": {},
        "pause": {},
        "cont": {},
        "hotplugDisk": {"params": disk},
        "hotunplugDisk": {"params": disk},
    }
    for verb, params in calls.items():
        with refused(6, vm_id, "Down"):
            await engine.call(f"VM.{verb}", vmID=vm_id, **params)


def without_hash(fields):
    return {name: value for name, value in fields.items() if name != "hash"}


def qemu_of(host, name):
    """The command lines of the QEMU processes that have the name in them."""
    processes = host.run(["ps", "-eo", "args"]).splitlines()
    return [args for args in processes if "qemu" in args and f"guest={name}" in args]
