# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks plugged into a running VM and unplugged, and a monitor that dies while the guest writes.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_hotplug.py`.
"""

from __future__ import annotations

import asyncio

import pytest
from lxml import etree

from lab.engine import connection_info, new_id
from lab.guest.domains import disk_xml
from lab.guest.records import compare
from tests.functional.helpers import (
    ask,
    assert_writes,
    booted,
    eventually,
    guest_disks,
    hears,
    paths,
    recorded_events,
    refused,
    served,
    session_fixture,
    status,
    told,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024


@session_fixture("module")
async def vm(engine):
    """A VM whose guest is ready; tests leave it with its first disk alone."""
    async with booted(engine) as machine:
        yield machine


async def plug(engine, vm, **params):
    return await ask(engine, "VM.hotplugDisk", vmID=vm.id, params={"vmId": vm.id, **params})


async def unplug(engine, vm, **params):
    return await ask(engine, "VM.hotunplugDisk", vmID=vm.id, params={"vmId": vm.id, **params})


def in_hotplug(disk):
    return f"<hotplug><devices>{disk}</devices></hotplug>"


def live_disks(host, vm):
    """libvirt's own list: the image of each target."""
    devices = etree.fromstring(host.virsh("dumpxml", vm.name)).iterfind("devices/disk")
    return {d.find("target").get("dev"): d.find("source").get("name") for d in devices}


async def assert_let_go(engine, vm, *images):
    """Everybody has let go of the images: the guest, QEMU, the daemon's list."""
    assert await guest_disks(vm) == {"vda": 64 * MIB}
    assert live_disks(engine.daemon.host, vm) == {"vda": f"volumes/{vm.image}"}
    assert await paths(engine, vm.id) == {"vda": f"volumes/{vm.image}"}
    for image in images:
        assert engine.lab.ceph.watchers(image) == []


class TestPlug:
    async def test_by_description(self, engine, vm, image):
        name, serial = image(32), "4a1b6c0e"
        disk = engine.disk(name, serial=serial)
        info = await plug(engine, vm, drive=disk)
        (plugged,) = [d for d in info["devices"] if d["path"] == f"volumes/{name}"]
        assert (plugged["name"], plugged["deviceId"]) == ("vdb", disk["deviceId"])
        assert plugged["alias"] == f"ua-{disk['deviceId']}"
        await hears(vm, f"^disk vdb added {32 * MIB}$")
        await assert_writes(engine, vm, "vdb", name, "described")

        assert engine.lab.ceph.watchers(name) != []
        info = await unplug(engine, vm, drive={"alias": plugged["alias"]})
        assert [d["name"] for d in info["devices"]] == ["vda"]
        await assert_let_go(engine, vm, name)

    async def test_by_cinders_connection_info(self, engine, vm, image):
        name = image(32)
        info = connection_info(
            engine.lab.ceph, name, engine.secret_id, qos_specs={"read_iops_sec": "900"}
        )
        answer = {"connection_info": info}
        listed = await plug(engine, vm, drive={"deviceId": new_id(), "connectionInfo": answer})
        (plugged,) = [d for d in listed["devices"] if d["path"] == f"volumes/{name}"]
        assert plugged["auth"]["uuid"] == engine.secret_id
        assert plugged["specParams"]["ioTune"]["read_iops_sec"] == 900
        await hears(vm, "^disk vdb added")
        await assert_writes(engine, vm, "vdb", name, "cinder")
        (limits,) = [
            told
            for told in await ask(engine, "VM.getIoTune", vmID=vm.id)
            if told["name"] == plugged["name"]
        ]
        assert limits["ioTune"]["read_iops_sec"] == 900

        with refused(45, f"volumes/{name}", "already"):
            await plug(engine, vm, drive={"connectionInfo": info})
        await unplug(engine, vm, drive={"connectionInfo": answer})
        await assert_let_go(engine, vm, name)

    @pytest.mark.parametrize("form", [in_hotplug, str], ids=["in hotplug", "bare"])
    async def test_by_xml(self, engine, vm, image, form):
        name = image()
        xml = form(disk_xml(engine.lab.ceph, name, "vdf", engine.secret_id))
        await plug(engine, vm, xml=xml)
        assert (await paths(engine, vm.id))["vdf"] == f"volumes/{name}"
        # The guest counts its disks by itself.
        await hears(vm, "^disk vdb added")
        await assert_writes(engine, vm, "vdb", name, "xml")

        await unplug(engine, vm, xml=xml)
        await assert_let_go(engine, vm, name)

    @pytest.mark.parametrize("form", ["xml", "description"])
    async def test_a_target_that_is_taken_becomes_a_free_one(self, engine, vm, image, form):
        """oVirt's engine writes target vda, or index 0, for every disk that it has plugged."""
        names = [image(), image()]
        for name, target in zip(names, ("vdb", "vdc")):
            if form == "xml":
                xml = in_hotplug(disk_xml(engine.lab.ceph, name, "vda", engine.secret_id))
                await plug(engine, vm, xml=xml)
            else:
                await plug(engine, vm, drive=engine.disk(name, index="0"))
            assert (await paths(engine, vm.id))[target] == f"volumes/{name}"
        await hears(vm, "^disk vdc added")
        await assert_writes(engine, vm, "vdc", names[1], "hinted")
        for name in names:
            await unplug(engine, vm, drive={"path": f"volumes/{name}"})
        await assert_let_go(engine, vm, *names)

    async def test_each_gets_the_next_free_target(self, engine, vm, image):
        images = [image() for _ in range(3)]
        for name in images[:2]:
            await plug(engine, vm, drive=engine.disk(name))
        await unplug(engine, vm, drive={"path": f"volumes/{images[0]}"})
        await plug(engine, vm, drive=engine.disk(images[2]))
        assert await paths(engine, vm.id) == {
            "vda": f"volumes/{vm.image}",
            "vdb": f"volumes/{images[2]}",
            "vdc": f"volumes/{images[1]}",
        }
        for name in images[1:]:
            await unplug(engine, vm, drive={"path": f"volumes/{name}"})
        await assert_let_go(engine, vm, *images)

    async def test_is_told_by_a_new_hash_and_counted_in_statistics(self, engine, vm, image):
        name, (before,) = image(), await ask(engine, "VM.getStats", vmID=vm.id)
        async with recorded_events(engine) as events:
            await plug(engine, vm, drive=engine.disk(name))
            (during,) = await ask(engine, "VM.getStats", vmID=vm.id)
            await unplug(engine, vm, drive={"path": f"volumes/{name}"})
        (after,) = await ask(engine, "VM.getStats", vmID=vm.id)
        assert set(during["disks"]) == {"vda", "vdb"}
        assert set(after["disks"]) == {"vda"}
        assert during["hash"] != before["hash"]
        assert after["hash"] == before["hash"]
        assert set(told(events, vm.id)) == {"Up"}
        assert [e["params"][vm.id]["hash"] for e in events] == [during["hash"], after["hash"]]


class TestRefused:
    """Each leaves the VM as it was."""

    @session_fixture("function")
    async def unchanged(self, engine, host, vm):
        before = host.virsh("dumpxml", vm.name)
        yield
        assert host.virsh("dumpxml", vm.name) == before
        assert await status(engine, vm.id) == "Up"
        await assert_writes(engine, vm, "vda", vm.image, new_id())

    async def test_a_disk_that_is_plugged(self, engine, vm, unchanged):
        with refused(45, f"volumes/{vm.image}", "already", "nothing was changed"):
            await plug(engine, vm, drive=engine.disk(vm.image))

    async def test_an_unplug_of_what_is_not_plugged(self, engine, vm, unchanged):
        with refused(46, "volumes/other", vm.id, "not plugged", f"volumes/{vm.image}"):
            await unplug(engine, vm, drive={"path": "volumes/other"})
        with refused(46, "ua-other"):
            await unplug(engine, vm, drive={"alias": "ua-other"})
        with refused(46, "volumes/other"):
            xml = disk_xml(engine.lab.ceph, "other", "vda", engine.secret_id)
            await unplug(engine, vm, xml=in_hotplug(xml))

    async def test_a_connection_info_that_names_no_secret(self, engine, vm, image, unchanged):
        name = image()
        info = connection_info(engine.lab.ceph, name, None)
        with refused(11, name, "secret_uuid", "rbd_secret_uuid", "vms.cinder_secret_uuid"):
            await plug(engine, vm, drive={"connectionInfo": info})

    async def test_a_connection_info_and_a_path(self, engine, vm, image, unchanged):
        info = connection_info(engine.lab.ceph, image(), engine.secret_id)
        with refused(91, "path is a string of 13 characters", "beside connectionInfo"):
            await plug(engine, vm, drive={"path": "volumes/other", "connectionInfo": info})

    async def test_neither_or_two_disks(self, engine, vm, unchanged):
        disk = disk_xml(engine.lab.ceph, vm.image, "vdb", engine.secret_id)
        for call in (plug, unplug):
            with refused(11, "xml"):
                await call(engine, vm)
            with refused(91, "2 disks"):
                await call(engine, vm, xml=in_hotplug(disk * 2))
            with refused(91, "0 disks"):
                await call(engine, vm, xml=in_hotplug(""))

    async def test_an_image_that_is_not_there(self, engine, vm, unchanged):
        with refused(13, "volumes/none", "does not exist"):
            await plug(engine, vm, drive=engine.disk("none"))

    async def test_a_secret_that_is_not_registered(self, engine, vm, image, unchanged):
        auth = {"type": "ceph", "username": "cinder", "uuid": new_id()}
        with refused(45, auth["uuid"], "Host.registerSecrets"):
            await plug(engine, vm, drive=engine.disk(image(), auth=auth))


class TestDeafGuest:
    """It does not hear that a disk is to be unplugged."""

    @session_fixture("function")
    async def kept(self, engine, vm, image):
        """The path of a disk that the guest kept when it was asked to let go."""
        name = image()
        path = f"volumes/{name}"
        await plug(engine, vm, drive=engine.disk(name))
        await hears(vm, "^disk vdb added")
        await asyncio.to_thread(vm.console.ask, "deaf", "^deaf")
        with refused(46, path, vm.id, "did not let go"):
            await unplug(engine, vm, drive={"path": path})
        yield path
        await assert_let_go(engine, vm, name)

    async def test_keeps_it_until_it_hears_and_is_asked_again(self, engine, host, vm, kept):
        assert (await paths(engine, vm.id))["vdb"] == kept
        assert live_disks(host, vm)["vdb"] == kept
        await assert_writes(engine, vm, "vdb", kept.removeprefix("volumes/"), "kept")

        again = asyncio.create_task(unplug(engine, vm, drive={"path": kept}))
        await hear(vm)
        assert [d["name"] for d in (await again)["devices"]] == ["vda"]

    async def test_lets_go_by_itself_when_it_hears(self, engine, vm, kept):
        async with recorded_events(engine) as events:
            await hear(vm)

            async def gone():
                return kept not in (await paths(engine, vm.id)).values()

            await eventually(gone, "the disk to be gone")
        assert told(events, vm.id) == ["Up"]


async def hear(vm):
    await asyncio.to_thread(vm.console.ask, "hear", "^hearing")


class TestMonitors:
    async def test_the_guest_writes_on_when_its_monitor_dies(self, engine, host, lab, vm, image):
        mine, name = await monitor_of(engine, vm), image()

        async def another():
            return await monitor_of(engine, vm) not in (None, mine)

        await asyncio.to_thread(vm.console.send, "hammer vda")
        await hears(vm, "^hammer vda 3$")
        lab.ceph.kill_mon(mine)
        try:
            await assert_written_bytes_move(engine, vm)
            # The other two have to form a quorum first.
            await served(lambda: plug(engine, vm, drive=engine.disk(name)), "the others to do")
            await hears(vm, "^disk vdb added")
            await unplug(engine, vm, drive={"path": f"volumes/{name}"})
            await eventually(another, "QEMU to talk to another monitor")
            last = await asyncio.to_thread(vm.console.wait_for, r"^hammer vda (\d+)")
            await hears(vm, f"^hammer vda {int(last[1]) + 20}$")
        finally:
            lab.ceph.start_mon(mine)
            await asyncio.to_thread(lab.ceph.wait_quorum, 3)

        stopped = await asyncio.to_thread(vm.console.ask, "stop", r"^hammered vda (\d+)")
        assert compare(lab.ceph, vm.image, 0, int(stopped[1])).lost == ()
        assert await status(engine, vm.id) == "Up"
        await assert_let_go(engine, vm, name)


async def monitor_of(engine, vm):
    """The name of the monitor that the VM's QEMU talks to, None while there is none."""
    pid = (await engine.call("VM.getInfo", vmID=vm.id))["pid"]
    ss = ["ss", "--tcp", "--numeric", "--processes", "--no-header", "state", "established"]
    mine = [c for c in engine.daemon.host.run(ss).splitlines() if f"pid={pid}," in c]
    monitors = engine.lab.ceph.monitors
    return next((m.name for m in monitors if any(f" {m.address}:" in c for c in mine)), None)


async def assert_written_bytes_move(engine, vm):
    async def written():
        (stats,) = await ask(engine, "VM.getStats", vmID=vm.id)
        return int(stats["disks"]["vda"]["writtenBytes"])

    before = await written()

    async def more():
        return await written() > before

    await eventually(more, "more bytes to be counted as written")
