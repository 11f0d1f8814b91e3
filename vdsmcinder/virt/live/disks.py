# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugging disks into a running VM and unplugging them.

An unplug is done when the guest has let go, not when it was asked to: only then may the engine end
the storage connection.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

import libvirt
from lxml import etree

from vdsmcinder.errors import (
    HotplugDiskFailed,
    HotunplugDiskFailed,
    ResourceUnavailable,
    VMIsDown,
)
from vdsmcinder.hypervisor.connection import CallOverrun
from vdsmcinder.virt.disk import ceph_images
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.disk_params import DriveParams
from vdsmcinder.virt.disk.domain_disks import DriveQuery
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.live import device_ops
from vdsmcinder.virt.storage.consent import NO_CONSENT, Consent
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM

# The buses that libvirt plugs disks into and unplugs them from while a VM runs.
_PLUGGABLE = ("virtio", "scsi", "usb")


async def plug(vm: VM, wanted: DriveParams | Drive, consent: Consent = NO_CONSENT) -> None:
    """Plug a disk into the VM. Its target or index is a wish: what is taken becomes a free one.

    oVirt's engine writes target vda, or index 0, for every disk that it has plugged.
    consent: what is vouched for of its image.

    Raises VMIsDown (6), HotplugDiskFailed (45) if it is plugged already or QEMU does not take it,
    ImageNotFound (13), ResourceUnavailable (40) where Ceph or libvirt cannot be reached, and
    UnsupportedDrive (36). A plug that failed leaves the VM as it was.
    """
    async with vm.lock:
        vm.require_running("given a disk")
        taken = vm.domain.targets
        drive = wanted.beside(taken) if isinstance(wanted, Drive) else Drive.of(wanted, taken)
        _refuse_twice(vm, drive)
        _refuse_bus(vm, drive)
        drive = _on_a_controller(vm, drive, taken)
        claims = await vm.services.preflight.check(
            ceph_images.of_disks(drive.getXML()),
            vm.id,
            HotplugDiskFailed,
            beside=vm.domain.ceph,
            consent=consent,
        )
        disk = f"disk {drive.name} ({drive.source.path})"
        try:
            await device_ops.plug(vm, _xml(drive))
        except libvirt.libvirtError as e:
            action = f"{disk} could not be plugged into VM {vm.id}, which is as it was"
            raise libvirt_errors.explain(e, action, HotplugDiskFailed) from e
        except CallOverrun as e:
            raise ResourceUnavailable(
                f"whether {disk} is plugged is not known yet: {e}, then ask VM.getInfo",
                disk=drive.name,
            ) from e
        finally:
            await claims.release()


async def unplug(vm: VM, query: DriveQuery) -> None:
    """Unplug the disk that is meant, and wait until the guest has let go of it.

    Raises VMIsDown (6), HotunplugDiskFailed (46) if the disk is not plugged or the guest keeps it;
    it is listed on then, until the guest lets go after all.
    """
    async with vm.lock:
        vm.require_running("unplugged from")
        drive = _plugged(vm, query)
        if drive.bus not in _PLUGGABLE:
            raise HotunplugDiskFailed(
                f"disk {drive.name} ({drive.source.path}) cannot be unplugged from VM {vm.id} "
                f"while it runs, for the bus {drive.bus} lets none go then; shut the VM down first",
                disk=drive.name,
            )
        try:
            await device_ops.unplug(vm, drive.alias or "")
        except device_ops.StillPlugged as e:
            raise _kept(vm, drive, str(e)) from None
        except VMIsDown as e:
            raise VMIsDown(f"disk {drive.name} was not unplugged: {e.message}") from None
        except libvirt.libvirtError as e:
            action = f"disk {drive.name} could not be unplugged from VM {vm.id}"
            raise libvirt_errors.explain(e, action, HotunplugDiskFailed) from e


def _refuse_twice(vm: VM, drive: Drive) -> None:
    for plugged in vm.domain.drives:
        if plugged.same_as(drive):
            raise HotplugDiskFailed(
                f"disk {drive.source.path} is plugged into VM {vm.id} already, as {plugged.name}; "
                "nothing was changed",
                disk=plugged.name,
            )


def _refuse_bus(vm: VM, drive: Drive) -> None:
    action = f"disk {drive.source.path} cannot be plugged into VM {vm.id}"
    if drive.bus not in _PLUGGABLE:
        raise HotplugDiskFailed(
            f"{action} while it runs, for the bus {drive.bus} takes none then; plug it with iface "
            "virtio",
            disk=drive.name,
        )
    # libvirt would plug a SCSI controller beside it, of a model that few guests know, lsilogic.
    if vm.domain.lacks(drive.bus):
        raise HotplugDiskFailed(
            f"{action}, which has no controller for {drive.bus} disks; plug it with iface virtio, "
            f"or create the VM with a disk of iface {drive.bus}",
            disk=drive.name,
        )


def _on_a_controller(vm: VM, drive: Drive, taken: Container[str]) -> Drive:
    """The disk; at the first free index if its own is of a SCSI controller that is not there.

    libvirt would plug all controllers below it, too, and leave those there are ports for.
    """
    known = vm.domain.scsi_controllers
    if drive.bus != "scsi" or not known or drive.controller in known:
        return drive
    if drive.address is None:
        return replace(drive, target=targets.free(drive.bus, taken))
    raise HotplugDiskFailed(
        f"disk {drive.source.path} cannot be plugged into VM {vm.id}, which has no SCSI controller "
        f"{drive.controller}; give it an address on one of {', '.join(map(str, sorted(known)))}, "
        "or none",
        disk=drive.name,
    )


def _plugged(vm: VM, query: DriveQuery) -> Drive:
    """The VM's disk that the request means."""
    drive = query.find(vm.domain.drives)
    if drive is not None:
        return drive
    known = ", ".join(f"{d.name} ({d.source.path})" for d in vm.domain.drives) or "none"
    raise HotunplugDiskFailed(
        f"disk {query} is not plugged into VM {vm.id}, whose disks are: {known}; name one of them"
    )


def _kept(vm: VM, drive: Drive, why: str) -> HotunplugDiskFailed:
    return HotunplugDiskFailed(
        f"disk {drive.name} ({drive.source.path}) is still plugged into VM {vm.id}: {why}; unmount "
        "it in the guest and call again",
        disk=drive.name,
    )


def _xml(drive: Drive) -> str:
    return etree.tostring(drive.getXML(), encoding="unicode")
