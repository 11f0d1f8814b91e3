# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk of a VM: complete and valid once it is built, or not built at all.

VMs are created and disks are plugged from Drives. Engines and Cinder describe them as in
contract/wire.md, libvirt as in https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lxml import etree

from vdsmcinder.errors import UnsupportedDrive
from vdsmcinder.fields import Fields, kind_of, word
from vdsmcinder.hypervisor.xmldoc import (
    check_text,
    child_attribute,
    refuse_attributes,
    refuse_repeated,
)
from vdsmcinder.virt.disk import disk_params, drive_rules
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.address import Address
from vdsmcinder.virt.disk.bus_rules import DEVICE, REMOVABLE, Device
from vdsmcinder.virt.disk.disk_params import BOOT_ORDER, BUS, DriveParams
from vdsmcinder.virt.disk.drive_rules import USER_ALIAS
from vdsmcinder.virt.disk.driver import Driver
from vdsmcinder.virt.disk.source import (
    SOURCE_TYPES,
    BlockSource,
    FileSource,
    NetworkSource,
    Source,
)
from vdsmcinder.virt.disk.tuning import IoTune

_ATTRIBUTES = ("type", "device", "snapshot", "sgio", "model", "rawio")
_CHILDREN = frozenset(
    {"source", "auth", "encryption", "target", "driver", "iotune", "shareable", "readonly"}
    | {"serial", "boot", "address", "alias"}
)
# What libvirt writes for running VMs and works out anew from the rest.
_LIVE_CHILDREN = frozenset({"backingStore", "mirror", "acpi", "privateData"})


@dataclass(frozen=True)
class Drive:
    """A disk, cdrom, floppy or lun of a VM.

    target: vda, sdb, ... bus: virtio, scsi, sata, usb, ide or fdc. shared: several VMs write to it
    at once. boot_order: from 1; None does not boot. sgio: a lun's filtering of SCSI commands.
    model: libvirt's variant of virtio. rawio: a lun's raw I/O capability, yes or no.
    extras: further children of <disk> (wwn, blockio, ...) as XML, carried as they came.

    Raises UnsupportedDrive for kinds of disks that do not exist, InvalidParameter for values that
    do not fit.
    """

    device: Device
    source: Source
    target: str
    bus: str
    driver: Driver = field(default_factory=Driver)
    serial: str | None = None
    readonly: bool = False
    shared: bool = False
    boot_order: int | None = None
    io_tune: IoTune | None = None
    alias: str | None = None
    address: Address | None = None
    sgio: str | None = None
    model: str | None = None
    rawio: str | None = None
    extras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_text("disk", self.serial, self.alias, self.sgio, self.model, self.rawio)
        for extra in self.extras:
            etree.fromstring(extra)
        if not targets.is_target(self.target):
            expected = "a name such as vda, sdb or hdc"
            raise _unsupported("disk", "target", kind_of(self.target), expected)
        if self.bus not in targets.PREFIXES:
            raise _unsupported(self._thing, "iface", kind_of(self.bus), BUS.expected)
        self._check_device()

    def _check_device(self) -> None:
        kind = f"{self.source.type} on a {self.device.value}"
        if self.device is Device.CDROM and self.source.type == "network":
            raise _unsupported(self._thing, "diskType", kind, "file or block")
        if self.device is Device.FLOPPY and self.source.type != "file":
            raise _unsupported(self._thing, "diskType", kind, "file")
        if self.device is Device.LUN and self.source.type != "block":
            raise _unsupported(self._thing, "diskType", kind, "block")
        if self.device is Device.LUN and self.format != "raw":
            raise _unsupported(self._thing, "format", f"{self.format} on a lun", "raw")
        if self.device is not Device.LUN and self.sgio is not None:
            on_device = f"set on a {self.device.value}"
            raise _unsupported(self._thing, "sgio", on_device, "it on luns only")
        if self.device not in REMOVABLE and not self.source.path:
            raise _unsupported(
                self._thing, "path", "empty", "one, only cdroms and floppies are empty"
            )

    @property
    def _thing(self) -> str:
        return f"disk {self.target} ({self.source.path})"

    @property
    def name(self) -> str:
        """What operators and statistics call the disk: its target."""
        return self.target

    @property
    def index(self) -> int:
        """The disk's number on its bus, from 0."""
        return targets.index(self.target)

    @property
    def controller(self) -> int:
        """The number of a SCSI disk's controller: of its address, or libvirt's for its index."""
        if self.address is not None and self.address.type == "drive":
            return self.address.number("controller")
        return self.index // targets.DISKS_PER_SCSI_CONTROLLER

    @property
    def format(self) -> str:
        """Format of the image: raw or qcow2."""
        return self.driver.format

    @property
    def has_user_alias(self) -> bool:
        """Whether the alias was given by an engine, and so names the same disk for ever."""
        return self.alias is not None and self.alias.startswith(USER_ALIAS)

    @property
    def device_id(self) -> str | None:
        """The engine's deviceId, which the alias carries; None for an alias of libvirt's."""
        if self.alias is None or not self.has_user_alias:
            return None
        return self.alias[len(USER_ALIAS) :]

    def same_as(self, other: Drive) -> bool:
        """Whether both mean the same disk of one VM: by the engine's alias, or by the data."""
        if self.has_user_alias and disk_params.same_alias(self.alias, other.alias):
            return True
        return bool(self.source.path) and (
            (self.source.type, self.source.location) == (other.source.type, other.source.location)
        )

    def beside(self, taken: Container[str]) -> Drive:
        """The disk on a VM where those target names are in use; its own is a wish."""
        return replace(self, target=targets.wished_or_free(self.target, self.bus, taken))

    def getXML(self) -> etree._Element:
        """The <disk> element, which from_xml reads back to an equal Drive. Cannot fail."""
        attributes = {"type": self.source.type, "device": self.device.value, "snapshot": "no"}
        if self.sgio is not None:
            attributes["sgio"] = self.sgio
        if self.model is not None:
            attributes["model"] = self.model
        if self.rawio is not None:
            attributes["rawio"] = self.rawio
        disk = etree.Element("disk", attributes)
        self.source.write(disk)
        etree.SubElement(disk, "target", {"dev": self.target, "bus": self.bus})
        self.driver.write(disk)
        self._write_options(disk)
        return disk

    def _write_options(self, disk: etree._Element) -> None:
        if self.io_tune is not None:
            self.io_tune.write(disk)
        if self.shared:
            etree.SubElement(disk, "shareable")
        if self.readonly:
            etree.SubElement(disk, "readonly")
        if self.serial is not None:
            etree.SubElement(disk, "serial").text = self.serial
        if self.boot_order is not None:
            etree.SubElement(disk, "boot", {"order": str(self.boot_order)})
        if self.address is not None:
            self.address.write(disk)
        if self.alias is not None:
            etree.SubElement(disk, "alias", {"name": self.alias})
        for extra in self.extras:
            disk.append(etree.fromstring(extra))

    @classmethod
    def from_xml(cls, disk: etree._Element) -> Drive:
        """Read a <disk> element, of a document that was sent or of a running VM.

        What libvirt adds to the disks of running VMs is left out (backing store, indexes, tray).
        Raises UnsupportedDrive for whatever else a Drive cannot express, so that nothing is lost
        unnoticed; domain_disks.py lists such disks as OpaqueDrive.
        """
        target = child_attribute(disk, "target", "dev") or ""
        thing = f"disk {target if targets.is_name(target) else 'without target'}"
        refuse_attributes(disk, _ATTRIBUTES, thing)
        refuse_repeated(disk, thing)
        for where in disk.iterfind("target"):
            refuse_attributes(where, ("dev", "bus", "tray"), thing)
        fields = Fields(dict(disk.attrib), thing)
        boot = Fields({"order": child_attribute(disk, "boot", "order")}, thing, "boot")
        driver, io_tune, address = disk.find("driver"), disk.find("iotune"), disk.find("address")
        return cls(
            device=fields.get("device", DEVICE) or Device.DISK,
            source=_read_source(disk, thing),
            target=target,
            bus=child_attribute(disk, "target", "bus") or targets.bus_of(target) or "",
            driver=Driver() if driver is None else Driver.read(driver, thing),
            serial=disk.findtext("serial") or None,
            readonly=disk.find("readonly") is not None,
            shared=disk.find("shareable") is not None,
            boot_order=boot.get("order", BOOT_ORDER),
            io_tune=None if io_tune is None else IoTune.read(io_tune, thing),
            alias=child_attribute(disk, "alias", "name"),
            address=None if address is None else Address.read(address, thing),
            sgio=disk.get("sgio"),
            model=disk.get("model"),
            rawio=disk.get("rawio"),
            extras=_read_extras(disk),
        )

    @classmethod
    def wanted(cls, disk: etree._Element) -> Drive:
        """Read a <disk> that a request asks for; raises as from_xml and drive_rules.check do."""
        drive = cls.from_xml(disk)
        drive_rules.check(drive, drive._thing)
        return drive

    @classmethod
    def of(cls, params: DriveParams, taken: Container[str]) -> Drive:
        """The disk that a description means on a VM.

        taken: target names in use there; a disk without an index, or whose index is in use, gets
        the lowest one that is free on its bus. Raises UnsupportedDrive for kinds of disks that do
        not exist.
        """
        return cls(
            device=params.device,
            source=params.source,
            target=params.target(taken),
            bus=params.bus,
            driver=params.driver,
            serial=params.serial,
            readonly=params.readonly,
            shared=params.shared,
            boot_order=params.boot_order,
            io_tune=params.io_tune,
            alias=params.alias,
            address=params.address,
            sgio=params.sgio,
        )

    @classmethod
    def from_params(
        cls,
        params: Mapping[str, Any],
        taken: Container[str] = (),
        default_secret: str | None = None,
    ) -> Drive:
        """Read an engine's device description of a disk.

        params: as in contract/wire.md, "A Ceph disk in a device list", or with Cinder's answer in
        connectionInfo in place of all that says where the data is. taken: as in of().
        default_secret: what an answer of Cinder's without secret_uuid means.

        Raises MissingParameter, InvalidParameter and UnsupportedDrive; each names the field, the
        kind of its value and what was expected.
        """
        return cls.of(disk_params.read(params, default_secret), taken)

    @classmethod
    def from_connection_info(
        cls,
        info: Mapping[str, Any],
        taken: Container[str] = (),
        default_secret: str | None = None,
        **device: Any,
    ) -> Drive:
        """Read what Cinder answered for a volume on RBD, as ConnectionInfo.from_dict takes it.

        device: fields of the device description that Cinder does not know (iface, index,
        bootOrder, alias, ...), and encryption for an encrypted volume. The rest, and errors: as
        in from_params.
        """
        return cls.from_params({**device, "connectionInfo": info}, taken, default_secret)


def _read_source(disk: etree._Element, thing: str) -> Source:
    kind = disk.get("type", "file")
    if kind == "file":
        return FileSource.read(disk, thing)
    if kind == "block":
        return BlockSource.read(disk, thing)
    if kind == "network":
        return NetworkSource.read(disk, thing)
    raise _unsupported(thing, "type", word(kind, SOURCE_TYPES), "file, block or network")


def _read_extras(disk: etree._Element) -> tuple[str, ...]:
    known = _CHILDREN | _LIVE_CHILDREN
    return tuple(
        etree.tostring(child, encoding="unicode", with_tail=False)
        for child in disk.iterchildren("*")
        if child.tag not in known
    )


def _unsupported(thing: str, name: str, found: str, expected: str) -> UnsupportedDrive:
    return UnsupportedDrive(
        f"{thing}: {name} is {found}; expected {expected}",
        field=name,
        found=found,
        expected=expected,
    )
