# SPDX-License-Identifier: GPL-2.0-or-later
"""Which NIC of a running VM a request means, and what is to be changed of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from vdsmcinder.hypervisor.xmldoc import child_attribute
from vdsmcinder.virt.disk.disk_params import same_alias

MAC_ADDRESS = "([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}"
# A MAC address, an alias of libvirt's, an engine's alias.
_NAME = re.compile(rf"{MAC_ADDRESS}|(net|hostdev)[0-9]+|ua-[A-Za-z0-9_-]+")


def is_mac(text: str) -> bool:
    """Whether this is a MAC address."""
    return re.fullmatch(MAC_ADDRESS, text) is not None


@dataclass(frozen=True)
class NicQuery:
    """What a request says of the plugged NIC that it means; None where it says nothing."""

    alias: str | None = None
    mac: str | None = None

    def find(self, interfaces: Iterable[etree._Element]) -> etree._Element | None:
        """The <interface> that is meant: by alias, or else by MAC address, in any case."""
        plugged = tuple(interfaces)
        meant = (i for fits in (self._by_alias, self._by_mac) for i in plugged if fits(i))
        return next(meant, None)

    def _by_alias(self, interface: etree._Element) -> bool:
        return same_alias(self.alias, child_attribute(interface, "alias", "name"))

    def _by_mac(self, interface: etree._Element) -> bool:
        mac = child_attribute(interface, "mac", "address")
        return self.mac is not None and mac is not None and mac.lower() == self.mac.lower()

    def __str__(self) -> str:
        """As errors name it: by what has the form of a NIC's name alone."""
        known = (name for name in (self.alias, self.mac) if name and _NAME.fullmatch(name))
        return " ".join(known) or "of that name"


@dataclass(frozen=True)
class NicChange:
    """What VM.updateDevice asks of a NIC; None leaves things as they are.

    network: the bridge to be on. link_up: whether its cable is plugged. filter: libvirt's network
    filter, a <filterref>.
    """

    query: NicQuery
    network: str | None = None
    link_up: bool | None = None
    filter: etree._Element | None = None

    def apply(self, interface: etree._Element) -> None:
        """Make an <interface> of a running VM's document what is asked for."""
        if self.network is not None:
            source = _child(interface, "source")
            source.attrib.clear()
            source.set("bridge", self.network)
            interface.set("type", "bridge")
        if self.link_up is not None:
            _child(interface, "link").set("state", "up" if self.link_up else "down")
        if self.filter is not None:
            for old in interface.findall("filterref"):
                interface.remove(old)
            interface.append(self.filter)


def _child(interface: etree._Element, tag: str) -> etree._Element:
    found = interface.find(tag)
    return etree.SubElement(interface, tag) if found is None else found
