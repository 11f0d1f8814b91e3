# SPDX-License-Identifier: GPL-2.0-or-later
"""NICs and displays of the VMs whose domain is written here, from an engine's device list."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from vdsmcinder.virt.disk.address import Address

# No one gets in with it: it had expired before the VM started. A ticket replaces both.
_NO_PASSWORD = {"passwd": "*****", "passwdValidTo": "1970-01-01T00:00:01"}


@dataclass(frozen=True)
class Nic:
    """A NIC on a bridge. filter: libvirt's network filter that its traffic passes."""

    bridge: str
    mac: str | None = None
    model: str = "virtio"
    link_up: bool = True
    boot_order: int | None = None
    filter: str | None = None
    alias: str | None = None
    address: Address | None = None

    def write(self, devices: etree._Element) -> None:
        """Append <interface>."""
        interface = etree.SubElement(devices, "interface", {"type": "bridge"})
        if self.mac is not None:
            etree.SubElement(interface, "mac", {"address": self.mac})
        etree.SubElement(interface, "source", {"bridge": self.bridge})
        etree.SubElement(interface, "model", {"type": self.model})
        if self.filter is not None:
            etree.SubElement(interface, "filterref", {"filter": self.filter})
        if not self.link_up:
            etree.SubElement(interface, "link", {"state": "down"})
        if self.boot_order is not None:
            etree.SubElement(interface, "boot", {"order": str(self.boot_order)})
        if self.alias is not None:
            etree.SubElement(interface, "alias", {"name": self.alias})
        if self.address is not None:
            self.address.write(interface)


@dataclass(frozen=True)
class Display:
    """A graphical display. listen: address of this host, None for this host alone."""

    type: str
    listen: str | None = None
    keymap: str | None = None

    def write(self, devices: etree._Element) -> None:
        """Append <graphics>, closed to all until a ticket is set, and what belongs to it."""
        attributes = {"type": self.type, "port": "-1", "autoport": "yes", **_NO_PASSWORD}
        if self.keymap is not None:
            attributes["keymap"] = self.keymap
        graphics = etree.SubElement(devices, "graphics", attributes)
        listen = {"type": "address", "address": self.listen or "127.0.0.1"}
        etree.SubElement(graphics, "listen", listen)
        video = etree.SubElement(devices, "video")
        etree.SubElement(video, "model", {"type": "vga"})
        # An absolute pointer: the guest's stays under the client's.
        etree.SubElement(devices, "input", {"type": "tablet", "bus": "usb"})
