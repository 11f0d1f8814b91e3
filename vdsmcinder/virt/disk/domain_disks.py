# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks that a domain has, and finding the one that a request means among them.

By the engine's alias, by path, serial or target.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from vdsmcinder import uuids
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.fields import Fields
from vdsmcinder.hypervisor.xmldoc import child_attribute
from vdsmcinder.virt.disk.disk_params import is_known_form, same_alias
from vdsmcinder.virt.disk.drive import Drive


@dataclass(frozen=True)
class OpaqueDrive:
    """A disk of a domain that a Drive cannot express: listed, never changed.

    target: its target name, empty if it has none. reason: what is foreign in it, a sentence.
    """

    target: str
    alias: str | None
    reason: str


def read_drives(devices: etree._Element) -> tuple[tuple[Drive, ...], tuple[OpaqueDrive, ...]]:
    """Read all disks in <devices>: those that are Drives, and the others."""
    drives: list[Drive] = []
    opaque: list[OpaqueDrive] = []
    for disk in devices.iterfind("disk"):
        try:
            drives.append(Drive.from_xml(disk))
        except VdsmCinderError as e:
            target = child_attribute(disk, "target", "dev") or ""
            opaque.append(OpaqueDrive(target, child_attribute(disk, "alias", "name"), e.message))
    return tuple(drives), tuple(opaque)


def check_groups(drives: Iterable[Drive]) -> None:
    """Raise InvalidParameter for a disk whose limits are not those of others in its group.

    QEMU has one set of limits for a group, and libvirt refuses a VM that says otherwise.
    """
    first: dict[str, Drive] = {}
    for drive in drives:
        if drive.io_tune is None or drive.io_tune.group is None:
            continue
        other = first.setdefault(drive.io_tune.group, drive)
        if other.io_tune is not None and other.io_tune.in_force != drive.io_tune.in_force:
            thing = f"disk {drive.name} ({drive.source.path})"
            fields = Fields(drive.io_tune.values, thing, "iotune")
            expected = f"another, or the limits of disk {other.name}, which is in that group"
            raise fields.invalid("group_name", expected)


@dataclass(frozen=True)
class DriveQuery:
    """What a request says of the plugged disk that it means; None where it says nothing.

    alias: the engine's. path: of the source, with @snapshot if it is one. target: vda, sdb, ...
    """

    alias: str | None = None
    path: str | None = None
    serial: str | None = None
    target: str | None = None

    def find(self, drives: Iterable[Drive]) -> Drive | None:
        """The drive that is meant.

        The engine's alias names a drive for ever and the path its data. The serial counts where
        there is no path, the target where there is nothing else: targets are given out anew.
        """
        plugged = tuple(drives)
        by_alias = (d for d in plugged if same_alias(self.alias, d.alias))
        return next(by_alias, None) or next(filter(self._fits, plugged), None)

    def _fits(self, drive: Drive) -> bool:
        if self.path is not None:
            return drive.source.location == self.path
        if self.serial is not None:
            return drive.serial is not None and uuids.same(self.serial, drive.serial)
        return self.alias is None and drive.target == self.target

    def __str__(self) -> str:
        """As errors name it: by a name that has the form of such names."""
        names = filter(None, (self.path, self.serial, self.alias, self.target))
        return next(filter(is_known_form, names), "of that name")
