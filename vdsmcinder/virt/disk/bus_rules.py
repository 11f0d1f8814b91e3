# SPDX-License-Identifier: GPL-2.0-or-later
"""What a bus takes: which devices, and where on it.

As libvirt and QEMU have it, who would say so in words that name no field, some of them only when
the VM starts. For a number that is too large libvirt would make controllers until memory ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from vdsmcinder.fields import Fields, Kind, number
from vdsmcinder.virt.disk.address import PARTS, Address


class Device(str, Enum):
    """What the guest sees."""

    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"
    LUN = "lun"


REMOVABLE = (Device.CDROM, Device.FLOPPY)

DEVICE = Kind(Device, f"one of {', '.join(Device)}")

# Disks without an address are at their index, on controllers of which each has a few.
MOST_INDEX = 1023
INDEX = number(0, MOST_INDEX)
# Of controllers of one type; libvirt adds all that are missing below the highest one.
CONTROLLER = number(0, 255)


class Bus(NamedTuple):
    """devices: those that it takes. addresses: their types.

    Of the drives on a controller: the highest bus, target and unit of their addresses.
    """

    devices: tuple[Device, ...]
    addresses: tuple[str, ...]
    bus: int = 0
    target: int = 0
    unit: int = 0


_BUSES: Mapping[str, Bus] = {
    "virtio": Bus((Device.DISK, Device.LUN), ("pci", "ccw")),
    "scsi": Bus((Device.DISK, Device.CDROM, Device.LUN), ("drive",), target=255, unit=16383),
    "sata": Bus((Device.DISK, Device.CDROM), ("drive",), unit=5),
    "usb": Bus((Device.DISK, Device.CDROM), ("usb",)),
    "ide": Bus((Device.DISK, Device.CDROM), ("drive",), bus=1, unit=1),
    "fdc": Bus((Device.FLOPPY,), ("drive",), unit=1),
}


class OnBus(Protocol):
    """What is looked at of a disk."""

    @property
    def device(self) -> Device:
        """What the guest sees."""

    @property
    def bus(self) -> str:
        """virtio, scsi, ..."""

    @property
    def index(self) -> int | None:
        """Its number on the bus, from 0; None leaves it to the VM."""

    @property
    def address(self) -> Address | None:
        """Where it is to be."""


def check(disk: OnBus, thing: str) -> None:
    """Raise InvalidParameter, by field, for what the disk's bus does not take."""
    bus = _BUSES[disk.bus]
    fields = Fields({"iface": disk.bus, "index": disk.index}, thing)
    if disk.device not in bus.devices:
        takes = (name for name, other in _BUSES.items() if disk.device in other.devices)
        raise fields.invalid("iface", f"{' or '.join(takes)} for a {disk.device.value}")
    fields.get("index", INDEX)
    if disk.address is not None:
        _check_address(disk.address, disk.bus, thing)


def _check_address(address: Address, on: str, thing: str) -> None:
    bus = _BUSES[on]
    given = Fields({"type": address.type, **dict(address.parts)}, thing, "address")
    if address.type in PARTS and address.type not in bus.addresses:
        raise given.invalid("type", f"{' or '.join(bus.addresses)} for iface {on}")
    if address.type == "drive":
        given.get("controller", CONTROLLER)
        for part in ("bus", "target", "unit"):
            given.get(part, number(0, getattr(bus, part)))
