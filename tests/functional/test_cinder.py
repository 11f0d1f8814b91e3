# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Cinder's volumes, from creation to deletion, with VMs that run on what it answers.

The engine passes Cinder's answers on as they came. The tests build on each other, in their order:
the life of volumes is one story, and booting from them takes a guest seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json

import pytest

from lab.cinder.volumes import Volumes
from lab.engine import new_id, secret_params
from lab.guest.domains import pty_console
from lab.guest.image import pattern_checksum
from lab.steps import Step
from tests.functional.guests import Guest
from tests.functional.helpers import engine_on, eventually, refused, session_fixture
from vdsmcinder.ceph.connection_info import image_path

pytestmark = pytest.mark.asyncio(loop_scope="session")

GIB = 1024**3
LIMITS = {"total_iops_sec": "4000", "total_bytes_sec": "200000000"}
BOOT_S = 120


@pytest.fixture(scope="module")
def volumes(lab):
    """A client of Cinder's, which is started for it unless it runs."""
    lab.cinder.start(Step("Cinder", io.StringIO()))
    return Volumes(lab.cinder.url, "host1")


async def do(call, *args, **fields):
    """Something of Cinder's, in a thread: the engine's session stays alive meanwhile."""
    return await asyncio.to_thread(call, *args, **fields)


@contextlib.asynccontextmanager
async def booted_from(engine, answer, **changes):
    """A VM that boots from the volume that Cinder's answer names, once its guest has an agent."""
    vm_id, host = new_id(), engine.daemon.host
    disk = {"type": "disk", "device": "disk", "bootOrder": "1", "connectionInfo": answer, **changes}
    await engine.run(engine.flat(vm_id, disk))
    try:
        with pty_console(host, host.virsh("ttyconsole", vm_id)) as console:
            guest = Guest(vm_id, image_path(answer) or "", console, engine)
            await asyncio.to_thread(console.wait_ready, BOOT_S)
            await eventually(guest.has_agent, "libvirt to find the guest's agent")
            yield guest
    finally:
        await engine.destroy(vm_id)


async def plug(guest, answer):
    drive = {"deviceId": new_id(), "connectionInfo": answer}
    await guest.call("hotplugDisk", params={"vmId": guest.id, "drive": drive})
    return await guest.says(r"^disk (vd\w) added")


async def unplug(guest, answer):
    drive = {"connectionInfo": answer}
    await guest.call("hotunplugDisk", params={"vmId": guest.id, "drive": drive})


@session_fixture("module")
async def tenant(engine, lab, volumes):
    """An engine with the key registered under the UUID that Cinder answers."""
    fsid = json.loads(lab.ceph.ceph("--format", "json", "fsid"))["fsid"]
    await engine.call("Host.registerSecrets", secrets=[secret_params(fsid, lab.ceph.key)])
    yield engine
    await engine.call("Host.unregisterSecrets", uuids=[fsid])


async def test_a_volume_from_creation_to_deletion(tenant, lab, volumes):
    """Run, hot-plug, extend in use, snapshot while frozen, boot from the snapshot, delete."""
    lab.ceph.create_image("golden", 1024, lab.guest.boot_image)
    system = await do(volumes.manage, "golden")
    limited = f"limited-{new_id()}"
    await do(volumes.create_type, limited, LIMITS)
    data = await do(volumes.create, 1, volume_type=limited)
    system_answer, data_answer = [await do(volumes.attach, v) for v in (system, data)]
    async with booted_from(tenant, system_answer) as guest:
        await _runs_from_it(guest, system)
        disk = await plug(guest, data_answer)
        await _is_limited(guest, lab, data, disk)
        await _grows(guest, volumes, data, disk)
        snapshots = await _snapshot_while_frozen(guest, volumes, (system, data), disk)
        await unplug(guest, data_answer)
    for volume in (system, data):
        assert lab.ceph.watchers(f"volume-{volume}") == []
        await do(volumes.detach, volume)

    copies = [
        await do(volumes.create, size, snapshot_id=snapshot)
        for size, snapshot in zip((1, 2), snapshots)
    ]
    answers = [await do(volumes.attach, copy) for copy in copies]
    async with booted_from(tenant, answers[0]) as guest:
        disk = await plug(guest, answers[1])
        mounted = f"mount -o ro /dev/{disk} /mnt && cat /mnt/log"
        assert await guest.shell(mounted) == "before"
        await guest.after("umount /mnt; say let go", "^let go$")
        await unplug(guest, answers[1])

    for copy in copies:
        await do(volumes.detach, copy)
        await do(volumes.delete, copy)
    for snapshot in snapshots:
        await do(volumes.delete_snapshot, snapshot)
    for volume in (system, data):
        await do(volumes.delete, volume)
    assert await do(volumes.ids) == {"volumes": [], "snapshots": []}
    left = {f"volume-{volume}" for volume in (system, data, *copies)} | {"golden"}
    assert left.isdisjoint(lab.ceph.images())


async def _runs_from_it(guest, volume):
    (device,) = (await guest.call("getInfo"))["devices"]
    assert device["path"] == f"volumes/volume-{volume}"
    assert (await asyncio.to_thread(guest.console.disks))["vda"] == GIB


async def _is_limited(guest, lab, volume, disk):
    """Cinder's front-end QoS is in force; what the guest writes is in the volume."""
    (limits,) = [
        told["ioTune"]
        for told in await guest.call("getIoTune")
        if told["path"] == f"volumes/volume-{volume}"
    ]
    assert {name: limits[name] for name in LIMITS} == {n: int(v) for n, v in LIMITS.items()}
    written = await asyncio.to_thread(guest.console.write, disk, 0, 2, "cinder")
    assert written == pattern_checksum(2, "cinder")
    assert lab.ceph.checksum(f"volume-{volume}", 0, 2) == written


async def _grows(guest, volumes, volume, disk):
    """Cinder extends the volume in use, and the guest is told."""
    await do(volumes.extend, volume, 2)
    size = str(2 * GIB)
    spec = {"volumeID": volume}
    assert await guest.call("diskSizeExtend", driveSpecs=spec, newSize=size) == size
    assert await guest.says(rf"^disk {disk} resized (\d+)$") == size


async def _snapshot_while_frozen(guest, volumes, both, disk):
    """Snapshots of both volumes that hold what was written before, whole, and nothing after it."""
    made = f"mkfs.ext4 -q -F /dev/{disk} && mount /dev/{disk} /mnt && echo before >/mnt/log"
    await guest.after(f"{made} && say made", "^made$")
    drives = [{"volumeID": volume} for volume in both]
    await guest.call("snapshot", snapDrives=drives, snapMemory=None)
    later = "(echo after >>/mnt/log; sync; say written) & say trying"
    await guest.after(later, "^trying$")
    snapshots = [await do(volumes.snapshot, volume) for volume in both]
    assert "lab: written" not in guest.console.transcript
    await guest.call("thaw")
    await guest.says("^written$")
    assert await guest.shell("cat /mnt/log") == "after"
    await guest.after("umount /mnt; say let go", "^let go$")
    return snapshots


async def test_attachments(tenant, lab, volumes):
    """A VM boots from PUT's answer; a disk is plugged by GET's, and unplugged by PUT's."""
    lab.ceph.create_image("golden", 1024, lab.guest.boot_image)
    system = await do(volumes.manage, "golden")
    data = await do(volumes.create, 1)
    made, system_answer, _ = await do(volumes.attachment, system)
    _, plugged, shown = await do(volumes.attachment, data)
    with refused(11, system, "connection_info is empty"):
        disk = {"type": "disk", "device": "disk", "connectionInfo": made}
        await tenant.create(tenant.flat(new_id(), disk))
    async with booted_from(tenant, system_answer) as guest:
        await _runs_from_it(guest, system)
        disk = await plug(guest, shown)
        written = await asyncio.to_thread(guest.console.write, disk, 0, 2, "attachment")
        assert lab.ceph.checksum(f"volume-{data}", 0, 2) == written
        await unplug(guest, plugged["attachment"]["connection_info"])
    for volume, answer in ((system, made), (data, shown)):
        await do(volumes.delete_attachment, volume, answer)
        await do(volumes.delete, volume)


async def test_an_answer_without_a_secret(lab, host, volumes):
    """As of a Cinder before 21 that has no rbd_secret_uuid: refused, or the configured default."""
    secret = new_id()
    volume = await do(volumes.create, 1)
    answer = await do(volumes.attach, volume)
    answer["connection_info"]["data"]["secret_uuid"] = None
    name = answer["connection_info"]["data"]["name"]
    disk = {"type": "disk", "device": "disk", "connectionInfo": answer}
    try:
        async with engine_on(lab, lab.hosts["host2"], "daemon-no-default") as engine:
            params = engine.flat(new_id(), disk)
            with refused(11, name, "secret_uuid", "vms.cinder_secret_uuid"):
                await engine.create(params)
        options = {"vms": {"cinder_secret_uuid": secret}}
        async with engine_on(lab, lab.hosts["host2"], "daemon-default", options) as engine:
            params = engine.flat(new_id(), disk)
            with refused(9, name, secret, "not registered"):
                await engine.create(params)
            await engine.call("Host.registerSecrets", secrets=[secret_params(secret, lab.ceph.key)])
            vm_id = await engine.run(params)
            (device,) = (await engine.call("VM.getInfo", vmID=vm_id))["devices"]
            assert device["auth"]["uuid"] == secret
            assert lab.ceph.watchers(f"volume-{volume}") != []
    finally:
        await do(volumes.detach, volume)
        await do(volumes.delete, volume)
