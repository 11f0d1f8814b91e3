# SPDX-License-Identifier: GPL-2.0-or-later
"""What a domain document says of a VM's NICs and displays, for those who report them.

Follows https://libvirt.org/formatdomain.html, network interfaces and graphics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxml import etree

from vdsmcinder.hypervisor.xmldoc import child_attribute

_PORT = re.compile("[1-9][0-9]{0,4}")


@dataclass(frozen=True)
class Interface:
    """A NIC. name: its device on the host (vnet0), None while the VM does not run.

    network: the bridge or libvirt network that it is on. link_up: whether its cable is plugged.
    """

    name: str | None
    mac: str | None
    model: str | None
    network: str | None
    link_up: bool
    alias: str | None

    @classmethod
    def read(cls, interface: etree._Element) -> Interface:
        """Read an <interface> element."""
        bridge = child_attribute(interface, "source", "bridge")
        return cls(
            name=child_attribute(interface, "target", "dev"),
            mac=child_attribute(interface, "mac", "address"),
            model=child_attribute(interface, "model", "type"),
            network=bridge or child_attribute(interface, "source", "network"),
            link_up=child_attribute(interface, "link", "state") != "down",
            alias=child_attribute(interface, "alias", "name"),
        )


@dataclass(frozen=True)
class Graphics:
    """A display. type: vnc or spice. port, tls_port: None until the VM runs, or not offered."""

    type: str
    port: int | None
    tls_port: int | None
    listen: str | None

    @classmethod
    def read(cls, graphics: etree._Element) -> Graphics:
        """Read a <graphics> element."""
        return cls(
            type=graphics.get("type", ""),
            port=_port(graphics.get("port")),
            tls_port=_port(graphics.get("tlsPort")),
            listen=graphics.get("listen") or child_attribute(graphics, "listen", "address"),
        )


def _port(text: str | None) -> int | None:
    # libvirt writes -1 for a port that is still to be chosen.
    return int(text) if text is not None and _PORT.fullmatch(text) else None
