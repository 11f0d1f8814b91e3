# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing the medium in a CD drive of a running VM, or taking it out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import libvirt
from lxml import etree

from vdsmcinder.errors import ChangeDiskFailed
from vdsmcinder.virt.disk.bus_rules import Device
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import Source
from vdsmcinder.virt.live import device_ops
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM


@dataclass(frozen=True)
class CdChange:
    """source: the medium, of an empty path for none. target: of the drive; None is the only one."""

    source: Source
    target: str | None = None


async def change_cd(vm: VM, change: CdChange) -> None:
    """Put a medium into a CD drive of the VM, or take out what is in it.

    Taking out is a request to the guest, which may have locked the drive; putting in is not.
    Raises VMIsDown (6), ChangeDiskFailed (41) without such a drive, without such a file, or if the
    guest keeps its medium.
    """
    async with vm.lock:
        vm.require_running("given another CD")
        drive = _cd_drive(vm, change.target)
        flags = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE if change.source.path else 0
        changed = replace(drive, source=change.source)
        try:
            await device_ops.change(vm, etree.tostring(changed.getXML(), encoding="unicode"), flags)
        except libvirt.libvirtError as e:
            await vm.refresh()
            action = f"the CD in drive {drive.name} of VM {vm.id} could not be changed"
            raise libvirt_errors.explain(e, action, ChangeDiskFailed) from e


def _cd_drive(vm: VM, target: str | None) -> Drive:
    drives = [d for d in vm.domain.drives if d.device is Device.CDROM]
    meant = [d for d in drives if target in (None, d.target)]
    if len(meant) == 1:
        return meant[0]
    known = ", ".join(d.target for d in drives) or "none"
    wanted = f"no CD drive {target}" if target else "not one CD drive that alone could be meant"
    raise ChangeDiskFailed(
        f"VM {vm.id} has {wanted}; its CD drives are: {known}; say which by iface and index"
    )
