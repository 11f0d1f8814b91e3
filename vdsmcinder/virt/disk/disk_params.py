# SPDX-License-Identifier: GPL-2.0-or-later
"""The fields of an engine's disk description, converted one by one (contract/wire.md).

virt/disk/drive.py builds Drives of them. Cinder's connection info says where the data is; the other
fields come from here as well.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum
from typing import Any

from vdsmcinder.errors import UnsupportedDrive
from vdsmcinder.fields import BOOLEAN, UUID, Fields, Kind, choice, matching, number
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.source import (
    ABSOLUTE_PATH,
    BlockSource,
    FileSource,
    NetworkSource,
    Source,
)


class Device(str, Enum):
    """What the guest sees."""

    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"
    LUN = "lun"


REMOVABLE = (Device.CDROM, Device.FLOPPY)

# libvirt keeps aliases with this prefix and replaces all others by its own.
USER_ALIAS = "ua-"

DEVICE = Kind(Device, f"one of {', '.join(Device)}")
BUS = choice(*targets.PREFIXES)
BOOT_ORDER = number(1, 2**31 - 1)
SERIAL = matching(r"(?=.*\S)[A-Za-z0-9_.+ -]+", "letters, digits, spaces, '_', '.', '+' and '-'")
SGIO = choice("filtered", "unfiltered")

_ALIAS = matching(r"[A-Za-z0-9_.-]+", "letters, digits, '_', '-' and '.'")
INDEX = number(0, 2**31 - 1)
_DISK_TYPE = choice("file", "block", "network")

_DEFAULT_BUS: Mapping[Device, str] = {
    Device.DISK: "virtio",
    Device.CDROM: "sata",
    Device.FLOPPY: "fdc",
    Device.LUN: "scsi",
}


def thing(params: Any) -> str:
    """What errors call a disk that is described so."""
    if not isinstance(params, Mapping):
        return "disk"
    known = (params.get(name) for name in ("path", "deviceId", "alias", "name"))
    label = next((text for text in known if isinstance(text, str) and text), "without path")
    return f"disk {label[:100]!r}"


def device(fields: Fields) -> Device:
    """device: disk when it is absent."""
    return fields.get("device", DEVICE) or Device.DISK


def bus(fields: Fields) -> str:
    """iface: what suits the device when it is absent."""
    return fields.get("iface", BUS) or _DEFAULT_BUS[device(fields)]


def target(fields: Fields, taken: Container[str]) -> str:
    """index: the lowest free one of the bus when it is absent."""
    index = fields.get("index", INDEX)
    if index is None:
        return targets.free(bus(fields), taken)
    return targets.name(bus(fields), index)


def alias(fields: Fields) -> str | None:
    """alias; or one that carries deviceId, where libvirt would not keep what is given."""
    given = fields.get("alias", _ALIAS)
    device_id = fields.get("deviceId", UUID)
    if device_id is not None and not (given and given.startswith(USER_ALIAS)):
        return USER_ALIAS + device_id
    return given


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
        return BlockSource(fields.need("path", ABSOLUTE_PATH))
    if device(fields) not in REMOVABLE:
        return FileSource(fields.need("path", ABSOLUTE_PATH))
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
            value="network",
        )


def _convert_shared(value: Any) -> bool:
    if value in ("shared", "exclusive", "none"):
        return bool(value == "shared")
    return BOOLEAN.convert(value)


_SHARED = Kind(_convert_shared, "one of none, exclusive, shared, true, false")
