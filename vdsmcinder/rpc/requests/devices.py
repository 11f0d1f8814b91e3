# SPDX-License-Identifier: GPL-2.0-or-later
"""What VM.updateDevice and VM.changeCD change: a NIC, a display's password, a CD drive's medium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsmcinder.errors import InvalidParameter, UnsupportedDrive, UpdateDeviceFailed
from vdsmcinder.fields import Fields, choice, number
from vdsmcinder.rpc.requests.nic import read_change
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.bus_rules import INDEX
from vdsmcinder.virt.disk.disk_params import BUS
from vdsmcinder.virt.disk.source import ABSOLUTE_PATH, BlockSource, FileSource, Source
from vdsmcinder.virt.live.media import CdChange
from vdsmcinder.virt.live.nic_query import NicChange
from vdsmcinder.virt.live.ticket import DISPLAYS, Ticket
from vdsmcinder.virt.secrets.secret import Secret

_DISPLAY = choice(*DISPLAYS)
_CONFLICT = choice("keep", "disconnect", "fail")
_TTL_S = number(-(2**31), 2**31)
# Forms of DriveSpec (contract/types.txt) that mean media which this host has no access to.
_FOREIGN = ("GUID", "imageID", "volumeID", "specParams", "protocol", "hosts")


def read_update(vm_id: str, params: Mapping[str, Any]) -> NicChange | Ticket:
    """Read vmUpdateDeviceParams: of a NIC, or of a display.

    Raises MissingParameter (11), InvalidParameter (91), UpdateDeviceFailed (56) for devices of
    another kind, UnsupportedOperation (75) for what NICs here cannot do.
    """
    kind = params.get("deviceType", "graphics" if "graphicsType" in params else "interface")
    if kind == "interface":
        return read_change(params)
    if kind == "graphics":
        return read_ticket(params)
    raise UpdateDeviceFailed(
        f"a device of VM {vm_id} that is neither interface nor graphics cannot be changed while "
        "it runs; shut it down and create it anew"
    )


def read_ticket(params: Mapping[str, Any]) -> Ticket:
    """Read vmUpdateGraphicsDeviceParams.

    Raises MissingParameter and InvalidParameter, which never hold the password.
    """
    fields = Fields(params, "update of a display")
    password = params.get("password")
    if not isinstance(password, str):
        raise fields.missing("password", "a string")
    return Ticket(
        password=Secret(password.encode()),
        ttl_s=fields.get("ttl", _TTL_S) or 0,
        display=fields.get("graphicsType", _DISPLAY),
        existing=fields.get("existingConnAction", _CONFLICT) or "keep",
    )


def read_cd(spec: Any) -> CdChange:
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
    return CdChange(_medium(fields), None if index is None else targets.name(bus, index))


def _medium(fields: Fields) -> Source:
    path = fields.get("path", ABSOLUTE_PATH)
    if path is None:
        return FileSource("")
    # Not optional: libvirt would leave the drive empty for a file that is not there.
    return BlockSource(path) if path.startswith("/dev/") else FileSource(path)
