# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine's description of a disk, checked and typed (contract/wire.md).

Drives are built of it. Cinder's connection info may say where the data is; the other fields are the
same then.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from vdsmcinder import uuids
from vdsmcinder.ceph.connection_info import ConnectionInfo
from vdsmcinder.errors import UnsupportedDrive
from vdsmcinder.fields import BOOLEAN, UUID, Fields, Kind, choice, is_xml_text, number
from vdsmcinder.uuids import is_uuid
from vdsmcinder.virt.disk import bus_rules, drive_rules
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.address import Address
from vdsmcinder.virt.disk.bus_rules import DEVICE, REMOVABLE, Device
from vdsmcinder.virt.disk.disk_auth import Encryption
from vdsmcinder.virt.disk.drive_rules import ALIAS, SERIAL, USER_ALIAS
from vdsmcinder.virt.disk.driver import Driver
from vdsmcinder.virt.disk.source import (
    ABSOLUTE_PATH,
    BlockSource,
    FileSource,
    NetworkSource,
    Source,
)
from vdsmcinder.virt.disk.tuning import IoTune

BUS = choice(*targets.PREFIXES)
BOOT_ORDER = number(1, 2**31 - 1)
SGIO = choice("filtered", "unfiltered")

# An absolute path, or an image with its pool.
_PATH = re.compile(r"/\S+|[\w.-]+/[\w./@-]+")
_DISK_TYPE = choice("file", "block", "network")

_DEFAULT_BUS: Mapping[Device, str] = {
    Device.DISK: "virtio",
    Device.CDROM: "sata",
    Device.FLOPPY: "fdc",
    Device.LUN: "scsi",
}


@dataclass(frozen=True)
class DriveParams:
    """A disk as a request describes it: all of a Drive but its target, which depends on the others.

    index: its number on the bus, from 0; None leaves it to the VM. target_wish: the name that the
    index stands for. The rest is as in Drive.
    """

    device: Device
    source: Source
    bus: str
    index: int | None
    driver: Driver
    serial: str | None
    readonly: bool
    shared: bool
    boot_order: int | None
    io_tune: IoTune | None
    alias: str | None
    address: Address | None
    sgio: str | None

    @property
    def target_wish(self) -> str | None:
        """The target name that its index stands for."""
        return None if self.index is None else targets.name(self.bus, self.index)

    def target(self, taken: Container[str]) -> str:
        """Its target name on a VM where those names are taken."""
        return targets.wished_or_free(self.target_wish, self.bus, taken)


def read(params: Any, default_secret: str | None = None) -> DriveParams:
    """Read an engine's device description of a disk, as Drive.from_params takes it.

    Raises MissingParameter, InvalidParameter and UnsupportedDrive.
    """
    fields = Fields(params, thing(params))
    if "connectionInfo" in fields:
        return _read_cinders(fields, default_secret)
    io_tune = IoTune.from_params(fields.section("specParams").section("ioTune"))
    return _assemble(fields, source(fields), io_tune)


def _read_cinders(device: Fields, default_secret: str | None) -> DriveParams:
    """A description in which Cinder's answer says where the data is."""
    refuse_second_source(device)
    info = device.section("connectionInfo").values
    connection = ConnectionInfo.from_dict(info, default_secret)
    volume = f"volume {connection.image.path}"
    given = {name: device.values[name] for name in device.names()}
    fields = Fields(
        {
            "serial": connection.volume_id,
            "discard": connection.discard,
            **given,
            # A volume that Cinder gives out for reading is never attached for writing.
            "readonly": connection.readonly or device.get("readonly", BOOLEAN),
        },
        volume,
    )
    io_tune = IoTune.from_params(
        fields.section("specParams").section("ioTune")
    ) or IoTune.from_qos_specs(Fields(connection.qos, volume, "data.qos_specs"))
    encryption = _encryption(connection, fields)
    return _assemble(fields, NetworkSource.from_connection(connection, encryption), io_tune)


def _assemble(fields: Fields, source: Source, io_tune: IoTune | None) -> DriveParams:
    kind = device(fields)
    read_driver = Driver.for_removable if kind in REMOVABLE else Driver.for_disk
    params = DriveParams(
        device=kind,
        source=source,
        bus=bus(fields),
        index=fields.get("index", bus_rules.INDEX),
        driver=read_driver(fields, source),
        serial=serial(fields),
        readonly=fields.get("readonly", BOOLEAN) or False,
        shared=shared(fields),
        boot_order=fields.get("bootOrder", BOOT_ORDER),
        io_tune=io_tune,
        alias=alias(fields),
        address=Address.from_fields(fields.section("address")) if "address" in fields else None,
        sgio=fields.get("sgio", SGIO),
    )
    drive_rules.check(params, fields.thing)
    return params


def _encryption(connection: ConnectionInfo, fields: Fields) -> Encryption | None:
    """The device description's; Cinder tells that a volume is encrypted, and no passphrase."""
    encryption = Encryption.from_fields(fields)
    if connection.encrypted and encryption is None:
        expected = (
            "false, or encryption beside it, with the uuid of the libvirt secret that holds the "
            "passphrase"
        )
        raise UnsupportedDrive(
            f"{fields.thing}: data.encrypted is 'true'; expected {expected}",
            field="data.encrypted",
            expected=expected,
        )
    return encryption


def thing(params: Any) -> str:
    """What errors call a disk that is described so."""
    if not isinstance(params, Mapping):
        return "disk"
    known = (params.get(name) for name in ("path", "deviceId", "alias", "name"))
    texts = (name for name in known if isinstance(name, str))
    label = next(filter(is_known_form, texts), None)
    return "disk" if label is None else f"disk {label[:100]!r}"


def is_known_form(name: str) -> bool:
    """Whether a name of a disk has a form that such names have, so that an error may repeat it.

    A path or an image, an engine's id or an alias with it, a target.
    """
    if not is_xml_text(name):
        return False
    known = is_uuid(name) or name.startswith(USER_ALIAS) or targets.is_name(name)
    return known or (_PATH.fullmatch(name) is not None)


def device(fields: Fields) -> Device:
    """device: disk when it is absent."""
    return fields.get("device", DEVICE) or Device.DISK


def bus(fields: Fields) -> str:
    """iface: what suits the device when it is absent."""
    return fields.get("iface", BUS) or _DEFAULT_BUS[device(fields)]


def alias(fields: Fields) -> str | None:
    """alias; or one that carries deviceId, where libvirt would not keep what is given."""
    given = fields.get("alias", ALIAS)
    device_id = fields.get("deviceId", UUID)
    if device_id is not None and not (given and given.startswith(USER_ALIAS)):
        return USER_ALIAS + device_id
    return given


def same_alias(one: str | None, other: str | None) -> bool:
    """Whether two aliases are one device's: as written, or a deviceId's UUID in any case."""
    if one is None or other is None:
        return False
    ids = [text[len(USER_ALIAS) :] for text in (one, other) if text.startswith(USER_ALIAS)]
    return one == other or (len(ids) == 2 and uuids.same(*ids))


def serial(fields: Fields) -> str | None:
    """serial: none for a lun, which shows the guest its own."""
    given = fields.get("serial", SERIAL)
    return None if device(fields) is Device.LUN else given


def shared(fields: Fields) -> bool:
    """shared: whether several VMs write to the disk at once."""
    return fields.get("shared", _SHARED) or False


def source(fields: Fields) -> Source:
    """diskType, path and what goes with them."""
    # What the payload holds may be secret (cloud-init passwords): it is not shown.
    if "vmPayload" in fields.section("specParams"):
        raise UnsupportedDrive(
            f"{fields.thing}: specParams.vmPayload is set; expected none, payloads are not "
            "supported",
            field="specParams.vmPayload",
        )
    kind = fields.get("diskType", _DISK_TYPE) or _guess_type(fields)
    if kind == "network":
        _refuse_network_removable(fields)
        return NetworkSource.from_fields(fields)
    if kind == "block":
        return BlockSource(fields.need("path", ABSOLUTE_PATH), Encryption.from_fields(fields))
    if device(fields) not in REMOVABLE:
        path = fields.need("path", ABSOLUTE_PATH)
        return FileSource(path, encryption=Encryption.from_fields(fields))
    path = fields.get("path", ABSOLUTE_PATH) or ""
    # A VM must start without the ISO image that it was installed from.
    optional = bool(path) and device(fields) is Device.CDROM
    return FileSource(path, startup_policy="optional" if optional else None)


def refuse_second_source(fields: Fields) -> None:
    """Raise InvalidParameter for what says where the data is, beside connectionInfo."""
    fields.get("diskType", choice("network"))
    fields.get("protocol", choice("rbd"))
    for name in ("path", "hosts", "auth", "configFile"):
        if fields.values.get(name):
            raise fields.invalid(name, "none beside connectionInfo, which says where the data is")


def _guess_type(fields: Fields) -> str:
    if "protocol" in fields or "hosts" in fields:
        return "network"
    path = fields.get("path", ABSOLUTE_PATH) or ""
    return "block" if path.startswith("/dev/") else "file"


def _refuse_network_removable(fields: Fields) -> None:
    if device(fields) in REMOVABLE:
        raise UnsupportedDrive(
            f"{fields.thing}: diskType is 'network' on a {device(fields).value}; expected file"
            + (" or block" if device(fields) is Device.CDROM else ""),
            field="diskType",
        )


def _convert_shared(value: Any) -> bool:
    if value in ("shared", "exclusive", "none"):
        return bool(value == "shared")
    return BOOLEAN.convert(value)


_SHARED = Kind(_convert_shared, "one of none, exclusive, shared, true, false")
