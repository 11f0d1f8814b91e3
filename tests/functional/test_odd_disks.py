# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that libvirt and QEMU have rules of their own for: what is taken works, the rest is told.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_odd_disks.py`.
"""

from __future__ import annotations

import asyncio

import pytest
from lxml import etree

from lab.engine import new_id
from lab.guest.domains import disk_xml, pty_console
from tests.functional.helpers import ask, new_image, refused, running, status

pytestmark = pytest.mark.asyncio(loop_scope="session")

PORT = "<controller type='pci' model='pcie-root-port'/>"


async def plug(engine, vm_id, image, **changes):
    drive = engine.disk(image, **changes)
    await engine.call("VM.hotplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": drive})


async def unplug(engine, vm_id, **drive):
    await engine.call("VM.hotunplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": drive})


async def domain_of(engine, vm_id):
    return etree.fromstring((await engine.call("Host.dumpxmls", vmList=[vm_id]))[vm_id])


async def test_nine_scsi_disks_are_nine_in_the_guest(engine, host, image):
    images = [image(8) for _ in range(9)]
    boot = engine.lab.guest
    params = engine.flat(
        new_id(),
        *(engine.disk(name, iface="scsi") for name in images),
        kernel=str(boot.kernel),
        initrd=str(boot.initrd),
        kernelArgs=boot.kernel_args,
    )
    async with running(engine, params) as vm_id:
        document = await domain_of(engine, vm_id)
        models = [c.get("model") for c in document.iterfind("devices/controller[@type='scsi']")]
        assert models == ["virtio-scsi"] * 2
        with pty_console(host, host.virsh("ttyconsole", vm_id)) as console:
            await asyncio.to_thread(console.wait_ready)
            found = await asyncio.to_thread(console.disks)
        assert found == dict.fromkeys((f"sd{letter}" for letter in "abcdefghi"), 8 * 1024**2)


async def test_a_usb_disk_without_a_display(engine, image):
    params = engine.flat(new_id(), engine.disk(image(), iface="usb"), memSize=64)
    async with running(engine, params) as vm_id:
        (device,) = (await engine.call("VM.getInfo", vmID=vm_id))["devices"]
        assert (device["iface"], device["name"]) == ("usb", "sda")
        document = await domain_of(engine, vm_id)
        assert [c.get("model") for c in document.iterfind("devices/controller[@type='usb']")] == [
            "qemu-xhci"
        ]


async def test_a_disk_for_which_there_is_no_controller(engine, image):
    params = engine.flat(new_id(), engine.disk(image()), memSize=64)
    async with running(engine, params) as vm_id:
        for bus in ("scsi", "usb"):
            with refused(45, f"no controller for {bus} disks", "plug it with iface virtio"):
                await plug(engine, vm_id, image(), iface=bus)
        document = await domain_of(engine, vm_id)
        assert document.find("devices/controller[@type='scsi']") is None


async def test_scsi_disks_that_are_plugged_one_after_another(engine, image):
    """What libvirt adds for the eighth is of the model that the VM has; nothing else is added."""
    params = engine.flat(new_id(), engine.disk(image(8), iface="scsi"), memSize=64)
    async with running(engine, params) as vm_id:
        for index in (None, 50, *[None] * 6):
            await plug(engine, vm_id, image(8), iface="scsi", index=index)
        document = await domain_of(engine, vm_id)
        told = [
            (c.get("index"), c.get("model"))
            for c in document.iterfind("devices/controller[@type='scsi']")
        ]
        assert told == [("0", "virtio-scsi"), ("1", "virtio-scsi")]
        where = {"type": "drive", "controller": "9", "bus": "0", "target": "0", "unit": "0"}
        with refused(45, "no SCSI controller 9; give it an address on one of 0, 1, or none"):
            await plug(engine, vm_id, image(8), iface="scsi", address=where)
        with refused(45, "the bus sata takes none then"):
            await plug(engine, vm_id, image(8), iface="sata")


async def test_queues_as_virtio_has_them(engine, image):
    """The smallest, the largest, and as many as there can be are what QEMU takes."""
    for queues, size in ((1, 4), (2, 1024), (1024, 256)):
        disk = engine.disk(image(8), specParams={"queues": queues, "queueSize": size})
        async with running(engine, engine.flat(new_id(), disk, memSize=64)):
            pass


async def test_the_longest_name_that_libvirt_can_have(engine, host, image):
    params = engine.flat(new_id(), engine.disk(image()), memSize=64, vmName="n" * 247)
    async with running(engine, params) as vm_id:
        assert host.virsh("domname", vm_id) == "n" * 247
    with refused(91, "vmName is", "247 bytes"):
        await engine.create(engine.flat(new_id(), memSize=64, vmName="n" * 248))


async def test_an_alias_that_libvirt_keeps(guest, engine, image):
    alias = "ua-data_Disk-1"
    await plug(engine, guest.id, image(), alias=alias, deviceId=None)
    assert alias in [d["alias"] for d in (await guest.call("getInfo"))["devices"]]
    await unplug(engine, guest.id, alias=alias)
    with refused(91, "alias is", "'.' only where it does not begin with ua-"):
        await plug(engine, guest.id, image(), alias="ua-data.disk", deviceId=None)


async def test_pcie_ports_that_are_used_up_and_an_address_that_is_taken(engine, image):
    """In a domain of the engine's own, with room for one more."""
    params = engine.document(new_id(), disk_xml(engine.lab.ceph, image(), "vda", engine.secret_id))
    ports = params["xml"].count("pcie-root-port")
    params["xml"] = params["xml"].replace(PORT, "", ports - 4)
    async with running(engine, params) as vm_id:
        document = await domain_of(engine, vm_id)
        taken = document.find("devices/disk/address")
        used = {"addressType": taken.get("type")}
        used.update({n: taken.get(n) for n in ("domain", "bus", "slot", "function")})
        with refused(45, "another of its devices has that address", "or none"):
            await plug(engine, vm_id, image(8), address=used)
        with refused(45, "all PCIe ports that it has are taken", "vms.spare_pcie_ports"):
            for _ in range(ports + 1):
                await plug(engine, vm_id, image(8))
        assert await status(engine, vm_id) == "Up"


async def test_what_is_not_known_here_is_told_with_the_others(engine, guest, lab):
    """A slice of a file, which is none of our disks, runs; what tells of all VMs tells of all."""
    image = engine.daemon.host.lab_dir / f"{new_id()}.raw"
    engine.daemon.host.run(["truncate", "--size=8M", image])
    disk = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'>"
        "<slices><slice type='storage' offset='1048576' size='4194304'/></slices></source>"
        "<target dev='vdb' bus='virtio'/><address type='pci' bus='02' slot='00'/></disk>"
    )
    with new_image(engine) as first:
        both = disk_xml(lab.ceph, first, "vda", engine.secret_id) + disk
        params = engine.document(new_id(), both)
        async with running(engine, params) as vm_id:
            for verb, given in (
                ("Host.getVMFullList", {}),
                ("Host.getVMList", {"fullStatus": True}),
                ("Host.getAllVmStats", {}),
            ):
                told = {one["vmId"]: one for one in await ask(engine, verb, **given)}
                assert {vm_id, guest.id} <= told.keys()
            assert told[vm_id]["disks"].keys() == {"vda", "vdb"}


async def test_limits_that_qemu_would_refuse(engine, image):
    for limits, words in (
        ({"total_bytes_sec_max": 5}, "total_bytes_sec_max is 5; expected 0, or total_bytes_sec"),
        ({"total_iops_sec": 9, "total_iops_sec_max": 5}, "expected at least total_iops_sec, 9"),
        ({"size_iops_sec": 4096}, "size_iops_sec is 4096"),
        ({"read_iops_sec": 9, "read_iops_sec_max_length": 2}, "read_iops_sec_max_length is 2"),
    ):
        disk = engine.disk(image(8), specParams={"ioTune": limits})
        with refused(91, "specParams.ioTune.", words):
            await engine.create(engine.flat(new_id(), disk, memSize=64))


async def test_limits_at_the_edge_of_what_qemu_takes(engine, image):
    """What is let through is not refused by QEMU then."""
    for limits in (
        {"total_bytes_sec": 10**15},
        {"read_iops_sec": 5, "read_iops_sec_max": 10**14, "read_iops_sec_max_length": 10},
        {"write_bytes_sec": 5, "write_bytes_sec_max": 5, "write_bytes_sec_max_length": 1},
        {"total_iops_sec": 5, "size_iops_sec": 10**15, "group_name": "gold"},
        {"total_iops_sec": 5, "read_bytes_sec": 7, "write_bytes_sec": 8},
    ):
        disk = engine.disk(image(8), specParams={"ioTune": limits})
        async with running(engine, engine.flat(new_id(), disk, memSize=64)) as vm_id:
            more = {"name": "vda", "ioTune": {"total_bytes_sec": 6, "total_bytes_sec_max": 7}}
            await engine.call("VM.setIoTune", vmID=vm_id, tunables=[more])


async def test_a_group_whose_disks_have_other_limits(engine, image):
    limits = {"total_iops_sec": 5, "group_name": "gold"}
    disk = engine.disk(image(8), specParams={"ioTune": limits})
    async with running(engine, engine.flat(new_id(), disk, memSize=64)) as vm_id:
        with refused(45, "its limits are not those of the other disks in its group"):
            more = {"ioTune": {**limits, "total_iops_sec": 6}}
            await plug(engine, vm_id, image(8), specParams=more)
        await plug(engine, vm_id, image(8), specParams={"ioTune": limits})


async def test_what_another_device_has(engine, image):
    disk = engine.disk(image(8), bootOrder=1, deviceId=None, alias="ua-root")
    async with running(engine, engine.flat(new_id(), disk, memSize=64)) as vm_id:
        with refused(45, "another of its devices has that place in the boot order", "or none"):
            await plug(engine, vm_id, image(8), bootOrder=1)
        with refused(45, "it has no I/O thread of that number", "numOfIoThreads"):
            await plug(engine, vm_id, image(8), specParams={"pinToIoThread": 3})
