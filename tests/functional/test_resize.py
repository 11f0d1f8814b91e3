# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that grows while its VM runs: Cinder extends the image, the guest is told."""

from __future__ import annotations

import contextlib

import pytest

from lab.guest.image import pattern_checksum
from tests.functional.guests import DISK_MIB, new_guest
from tests.functional.helpers import eventually, refused
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1024 * 1024


async def test_the_guest_sees_its_disk_grow(engine, lab):
    async with new_guest(engine) as guest:
        console, image = guest.console, guest.image
        console.write("vda", 10, 2, "before")
        lab.ceph.resize_image(image, DISK_MIB + 32)
        assert console.disks()["vda"] == DISK_MIB * MIB
        size = str((DISK_MIB + 32) * MIB)
        assert await guest.call("diskSizeExtend", driveSpecs={"name": "vda"}, newSize=size) == size
        assert await guest.says(r"^disk vda resized (\d+)$") == size
        written = console.write("vda", DISK_MIB + 20, 2, "beyond")
        assert lab.ceph.checksum(image, DISK_MIB + 20, 2) == written
        assert lab.ceph.checksum(image, 10, 2) == pattern_checksum(2, "before")

        # Told again, or by any other name, it is still true.
        volume = image[len("volume-") :]
        (drive,) = [d for d in (await guest.call("getInfo"))["devices"] if d["device"] == "disk"]
        for spec in (
            {"path": f"volumes/{image}"},
            {"GUID": volume},
            {"volumeID": volume, "imageID": drive["deviceId"]},
            {"alias": drive["alias"]},
        ):
            assert await guest.call("diskSizeExtend", driveSpecs=spec, newSize=size) == size
        await _refused(guest, lab)


async def _refused(guest, lab):
    """What would make the image larger, or the disk smaller, changes nothing."""
    grown = (DISK_MIB + 32) * MIB

    async def extend(size, **spec):
        spec = spec or {"name": "vda"}
        await guest.call("diskSizeExtend", driveSpecs=spec, newSize=str(size))

    for wrong in (grown + MIB, grown - MIB, 0):
        with refused(58, f"to become {wrong} bytes, but its image has {grown}"):
            await extend(wrong)
    with refused(13, "no disk such as"):
        await extend(grown, name="vdz")
    with refused(36, "not on Ceph"):
        await extend(grown, name="sda")
    with refused(-32602, "newSize"):
        await extend("much")
    assert lab.ceph.image_size(guest.image) == grown
    assert guest.console.disks()["vda"] == grown

    lab.ceph.rbd("resize", "--size", DISK_MIB, "--allow-shrink", f"volumes/{guest.image}")
    with refused(58, "a disk in use cannot shrink"):
        await extend(DISK_MIB * MIB)
    lab.ceph.resize_image(guest.image, DISK_MIB + 32)


async def test_a_key_that_the_daemon_was_not_given(engine, guest, lab):
    """It keeps no key beyond its own life; then it asks for it, and has the guest wait."""
    await engine.call("Host.unregisterSecrets", uuids=[engine.secret_id])
    try:
        with refused(40, engine.secret_id, "register it with Host.registerSecrets"):
            spec = {"name": "vda"}
            await guest.call("diskSizeExtend", driveSpecs=spec, newSize=str(DISK_MIB * MIB))
    finally:
        await engine.register_key()
    size = str(DISK_MIB * MIB)
    assert await guest.call("diskSizeExtend", driveSpecs={"name": "vda"}, newSize=size) == size


async def test_a_cluster_that_does_not_answer(guest, lab):
    async def extend():
        params = {"driveSpecs": {"name": "vda"}, "newSize": str(DISK_MIB * MIB)}
        return await guest.call("diskSizeExtend", **params)

    async def extended():
        with contextlib.suppress(RemoteError):
            return await extend()

    for name in ("a", "b", "c"):
        lab.ceph.freeze_mon(name)
    try:
        with refused(40, guest.image, "let nobody in", "; check the monitors and the network"):
            await extend()
        assert (await guest.stats())["status"] == "Up"
    finally:
        for name in ("a", "b", "c"):
            lab.ceph.thaw_mon(name)
        lab.ceph.wait_quorum(3)
    assert await eventually(extended, "the daemon to hear of the cluster again")
