# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a device sits in the guest: libvirt's <address>.

An engine remembers it, and devices get it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from vdsmcinder.fields import Fields, Kind, choice, matching
from vdsmcinder.hypervisor.xmldoc import check_text, refuse_children

# The parts of an address, by its type (https://libvirt.org/formatdomain.html#device-addresses).
PARTS: Mapping[str, tuple[str, ...]] = {
    "pci": ("domain", "bus", "slot", "function", "multifunction"),
    "drive": ("controller", "bus", "target", "unit"),
    "virtio-serial": ("controller", "bus", "port"),
    "usb": ("bus", "port"),
    "ccw": ("cssid", "ssid", "devno"),
}

# As libvirt reads them: in C's notation, where a leading 0 makes it octal, or decimal.
_C_NUMBER = matching(
    r"0[xX][0-9A-Fa-f]{1,8}|0[0-7]{0,10}|[1-9][0-9]{0,9}",
    "a number, decimal, hexadecimal with 0x or octal with 0",
)
# The largest number of each part of a PCI address.
_PCI: Mapping[str, int] = {"domain": 0xFFFF, "bus": 0xFF, "slot": 0x1F, "function": 7}
_DECIMAL = matching(r"[0-9]{1,10}", "a number in decimal digits")
_IN_C = ("pci", "ccw")
_PORT = matching(r"[0-9]{1,3}(\.[0-9]{1,3})*", "a USB port such as 1 or 1.2")
_ON_OFF = choice("on", "off")


@dataclass(frozen=True)
class Address:
    """type: pci, drive, usb, ... parts: pairs of name and value as libvirt writes them.

    Raises InvalidParameter for parts that libvirt would not take.
    """

    type: str
    parts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_text("address", self.type, *(value for _, value in self.parts))
        _check(self.type, dict(self.parts), "device")

    def number(self, part: str) -> int:
        """A part that is a number; 0 where it is not given, as libvirt has it."""
        text = dict(self.parts).get(part, "0")
        return _c_number(text) if self.type in _IN_C else int(text)

    def write(self, device: etree._Element) -> None:
        """Append <address>."""
        etree.SubElement(device, "address", {"type": self.type, **dict(self.parts)})

    @classmethod
    def read(cls, address: etree._Element, thing: str) -> Address:
        """Read <address>. Raises UnsupportedDrive for children, as those of s390's PCI."""
        refuse_children(address, (), thing)
        parts = {str(name): str(value) for name, value in address.attrib.items()}
        kind = parts.pop("type", "")
        _check(kind, parts, thing)
        return cls(kind, tuple(parts.items()))

    @classmethod
    def from_fields(cls, address: Fields) -> Address:
        """Read a device description's `address`; its type is called type or addressType."""
        name = "type" if "type" in address else "addressType"
        kind = address.need(name, choice(*PARTS))
        read = ((part, address.get(part, _kind(kind, part))) for part in PARTS[kind])
        parts = {part: value for part, value in read if value is not None}
        _check(kind, parts, address.thing)
        return cls(kind, tuple(parts.items()))


def _check(address_type: str, parts: Mapping[str, str], thing: str) -> None:
    given = Fields(parts, thing, "address")
    for name in PARTS.get(address_type, ()):
        given.get(name, _kind(address_type, name))
    for name, most in _PCI.items() if address_type == "pci" else ():
        if name in given and _c_number(parts[name]) > most:
            raise given.invalid(name, f"at most {most:#x}")


def _c_number(text: str) -> int:
    is_octal = text.startswith("0") and text.isdecimal()
    return int(text, 8 if is_octal else 0)


def _kind(address_type: str, part: str) -> Kind[str]:
    if part == "multifunction":
        return _ON_OFF
    if (address_type, part) == ("usb", "port"):
        return _PORT
    return _C_NUMBER if address_type in _IN_C else _DECIMAL
