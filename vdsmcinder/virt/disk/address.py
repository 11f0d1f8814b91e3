# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a device sits in the guest: libvirt's <address>.

An engine remembers it, and devices get it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from vdsmcinder.fields import Fields, Kind, choice, matching
from vdsmcinder.hypervisor.xmldoc import check_text

# The parts of an address, by its type (https://libvirt.org/formatdomain.html#device-addresses).
PARTS: Mapping[str, tuple[str, ...]] = {
    "pci": ("domain", "bus", "slot", "function", "multifunction"),
    "drive": ("controller", "bus", "target", "unit"),
    "virtio-serial": ("controller", "bus", "port"),
    "usb": ("bus", "port"),
    "ccw": ("cssid", "ssid", "devno"),
}

_NUMBER = matching(r"0x[0-9A-Fa-f]{1,8}|[0-9]{1,10}", "a number, decimal or hexadecimal with 0x")
_PORT = matching(r"[0-9]{1,3}(\.[0-9]{1,3})*", "a USB port such as 1 or 1.2")
_ON_OFF = choice("on", "off")


@dataclass(frozen=True)
class Address:
    """type: pci, drive, usb, ... parts: pairs of name and value as libvirt writes them."""

    type: str
    parts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_text("address", self.type, *(value for _, value in self.parts))

    def write(self, device: etree._Element) -> None:
        """Append <address>."""
        etree.SubElement(device, "address", {"type": self.type, **dict(self.parts)})

    @classmethod
    def read(cls, address: etree._Element) -> Address:
        """Read <address>."""
        parts = {str(name): str(value) for name, value in address.attrib.items()}
        return cls(parts.pop("type", ""), tuple(parts.items()))

    @classmethod
    def from_fields(cls, address: Fields) -> Address:
        """Read a device description's `address`; its type is called type or addressType."""
        name = "type" if "type" in address else "addressType"
        kind = address.need(name, choice(*PARTS))
        parts = ((part, address.get(part, _kind(kind, part))) for part in PARTS[kind])
        return cls(kind, tuple((part, value) for part, value in parts if value is not None))


def _kind(address_type: str, part: str) -> Kind[str]:
    if part == "multifunction":
        return _ON_OFF
    return _PORT if (address_type, part) == ("usb", "port") else _NUMBER
