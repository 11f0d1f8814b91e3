# SPDX-License-Identifier: GPL-2.0-or-later
"""Telling a running guest that its disk has grown: Cinder extends the image, QEMU has to be told.

Sizes are in bytes.
"""

from __future__ import annotations

import libvirt

from vdsmcinder.ceph.fault_kinds import CephFault
from vdsmcinder.ceph.workers import result
from vdsmcinder.errors import (
    ImageNotFound,
    ResourceUnavailable,
    UnsupportedDrive,
    WrongDiskSize,
)
from vdsmcinder.virt.disk.ceph_images import CephImage
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.domain import disk_lookup
from vdsmcinder.virt.domain.disk_lookup import DiskNames
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM


async def extend(vm: VM, wanted: DiskNames, new_size: int) -> int:
    """Tell the guest the size that the image of its disk has now; returns it, in bytes.

    wanted: which disk. new_size: what the caller believes, in bytes. QEMU makes the image as large
    as it is told, so it is told only what is true already. Of an encrypted disk the guest gets
    what its header leaves.
    Raises VMIsDown (6), ImageNotFound (13) for a disk that the VM does not have, UnsupportedDrive
    (36) for one that is not on Ceph, ResourceUnavailable (40), WrongDiskSize (58).
    """
    async with vm.lock:
        vm.require_running("told of a disk's size")
        drive, image = _ceph_disk(vm, wanted)
        size, header = await _image_size(vm, drive, image)
        try:
            known = await vm.call(_known_size, drive.target)
            _check(drive, size, new_size, known + header)
            await vm.call(_block_resize, drive.target, size - header)
        except libvirt.libvirtError as e:
            action = f"the guest of VM {vm.id} could not be told the size of disk {drive.name}"
            raise libvirt_errors.explain(e, action, WrongDiskSize, [drive]) from e
        return size


def _ceph_disk(vm: VM, wanted: DiskNames) -> tuple[Drive, CephImage]:
    drive = disk_lookup.find(vm.domain, wanted)
    if drive is None:
        known = ", ".join(f"{d.name} ({d.source.path})" for d in vm.domain.drives) or "none"
        raise ImageNotFound(
            f"VM {vm.id} has no disk such as driveSpecs names; its disks are: {known}; name one"
        )
    image = vm.domain.ceph.of_disk(drive.target)
    if image is None:
        raise UnsupportedDrive(
            f"disk {drive.name} ({drive.source.path}) of VM {vm.id} is not on Ceph; only the size "
            "of Ceph disks can be told to a guest",
            disk=drive.name,
        )
    return drive, image


async def _image_size(vm: VM, drive: Drive, image: CephImage) -> tuple[int, int]:
    """The size of the image, and what of it is a header that QEMU keeps from the guest, in bytes.

    It is what Ceph says: QEMU knows the size that the image had when it was opened.
    """
    action = f"the size of {image.words} could not be read"
    key = ceph_access.key(image, vm.services.secrets)
    if key is None and image.secret is not None:
        raise ResourceUnavailable(
            f"{action}: the value of secret {image.secret} is not known since the daemon was "
            "restarted; register it with Host.registerSecrets and call again",
            secret=image.secret.uuid,
        )
    try:
        # To QEMU, a disk that it decrypts is what is behind the header; with librbd, tried with
        # version 16, sizes are of the whole image.
        encryption = drive.source.encryption
        question = {
            "path": image.path,
            "luks": encryption is not None and encryption.engine != "librbd",
        }
        (looked,) = await vm.services.ceph.ask(
            ceph_access.account(image), key, "inspect", images=[question]
        )
        found = result(looked)
        return int(found["size"]), int(found.get("luks_header", 0))
    except CephFault as e:
        raise ceph_access.error(e, action, image, ResourceUnavailable) from e


def _known_size(domain: libvirt.virDomain, target: str) -> int:
    """What QEMU has told the guest, in bytes. Runs in the connection's thread pool."""
    capacity, _, _ = domain.blockInfo(target)
    return int(capacity)


def _check(drive: Drive, size: int, wanted: int, known: int) -> None:
    where = f"disk {drive.name} ({drive.source.path})"
    if wanted != size:
        raise WrongDiskSize(
            f"{where} was to become {wanted} bytes, but its image has {size}; extend it in Cinder "
            "first, and call again with the size that it has then",
            size=size,
        )
    if size < known:
        raise WrongDiskSize(
            f"the image of {where} has {size} bytes, less than the {known} that the guest knows; "
            "a disk in use cannot shrink, extend it in Cinder again",
            size=size,
        )


def _block_resize(domain: libvirt.virDomain, target: str, size: int) -> None:
    """Runs in the connection's thread pool."""
    domain.blockResize(target, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
