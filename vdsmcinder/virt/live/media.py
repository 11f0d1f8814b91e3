# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing the medium in a CD drive of a running VM, or taking it out.

rpc/vm.py calls change_cd() for VM.changeCD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import libvirt
from lxml import etree

from vdsmcinder.errors import ChangeDiskFailed, InvalidParameter, UnsupportedDrive
from vdsmcinder.fields import Fields
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.disk_params import BUS, INDEX, Device
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import ABSOLUTE_PATH, BlockSource, FileSource, Source
from vdsmcinder.virt.live import device_ops
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM

# Forms of DriveSpec (contract/types.txt) that mean media which this host has no access to.
_FOREIGN = ("GUID", "imageID", "volumeID", "specParams", "protocol", "hosts")


@dataclass(frozen=True)
class CdChange:
    """source: the medium, of an empty path for none. target: of the drive; None is the only one."""

    source: Source
    target: str | None = None


def parse_cd(spec: Any) -> CdChange:
    """Read VM.changeCD's driveSpec: a path, or {path, iface, index}; an empty path ejects.

    Raises InvalidParameter for other values, UnsupportedDrive for media that are not on this host,
    such as an RBD image.
    """
    if isinstance(spec, str):
        spec = {"path": spec}
    if not isinstance(spec, Mapping):
        raise InvalidParameter(
            "changeCD: driveSpec is neither a path nor an object; send {path, iface, index}",
            field="driveSpec",
        )
    fields = Fields(spec, "changeCD", "driveSpec")
    foreign = [name for name in _FOREIGN if name in fields]
    if foreign or spec.get("diskType") == "network":
        raise UnsupportedDrive(
            f"changeCD: driveSpec names its medium by {', '.join(foreign) or 'diskType network'}; "
            "only files and block devices of this host are media, send their path",
            field="driveSpec",
        )
    index = fields.get("index", INDEX)
    bus = fields.get("iface", BUS) or "sata"
    return CdChange(_source(fields), None if index is None else targets.name(bus, index))


async def change_cd(vm: VM, spec: Any) -> None:
    """Put the medium that spec describes into a CD drive of the VM, or take out what is in it.

    Taking out is a request to the guest, which may have locked the drive; putting in is not.
    Raises VMIsDown (6), ChangeDiskFailed (41) without such a drive, without such a file, or if the
    guest keeps its medium, and what parse_cd raises.
    """
    async with vm.lock:
        vm.require_running("given another CD")
        change = parse_cd(spec)
        drive = _cd_drive(vm, change.target)
        flags = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE if change.source.path else 0
        changed = replace(drive, source=change.source)
        try:
            await device_ops.change(vm, etree.tostring(changed.getXML(), encoding="unicode"), flags)
        except libvirt.libvirtError as e:
            await vm.refresh()
            action = f"the CD in drive {drive.name} of VM {vm.id} could not be changed"
            raise libvirt_errors.explain(e, action, ChangeDiskFailed) from e


def _source(fields: Fields) -> Source:
    path = fields.get("path", ABSOLUTE_PATH)
    if path is None:
        return FileSource("")
    # Not optional: libvirt would leave the drive empty for a file that is not there.
    return BlockSource(path) if path.startswith("/dev/") else FileSource(path)


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
