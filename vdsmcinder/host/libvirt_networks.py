# SPDX-License-Identifier: GPL-2.0-or-later
"""What documents of oVirt's engine take for granted of a host's libvirt: networks and a filter.

A NIC in them is on libvirt network vdsm-<bridge> where it is on that bridge, and has the filter
that keeps guests from sending in the name of others' addresses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import libvirt
from lxml import etree

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.host import network
from vdsmcinder.host.netinfo import LIBVIRT_FILTER, LIBVIRT_PREFIX, bridges
from vdsmcinder.host.network import Network
from vdsmcinder.hypervisor.connection import Connection

log = logging.getLogger(__name__)

# libvirt's own filters, which it is made of.
_PARTS = ("no-mac-spoofing", "no-arp-mac-spoofing")


async def prepare(conn: Connection, read: Callable[[], Network] = network.read) -> None:
    """Have libvirt know a network for each bridge, and the filter; what is there is left alone.

    What keeps it from that is logged: VMs whose documents name neither are not touched by it.
    read: reads the host's networks; called in a thread.
    """
    try:
        found = await asyncio.to_thread(read)
        await conn.call(_define, conn.handle, [link.name for link in bridges(found)])
    except (libvirt.libvirtError, OSError) as e:
        log.warning("VMs with NICs as oVirt's engine describes them may not start: %s", e)
    except ResourceUnavailable as e:
        log.info("libvirt's networks are looked at again when it is back: %s", e)


# What follows runs in the connection's thread pool.


def _define(handle: libvirt.virConnect, names: Sequence[str]) -> None:
    known = {defined.name(): defined for defined in handle.listAllNetworks()}
    for bridge in names:
        name = LIBVIRT_PREFIX + bridge
        defined = known.get(name)
        if defined is None:
            defined = handle.networkDefineXML(_network_xml(name, bridge))
            defined.setAutostart(1)
            log.info("libvirt has network %s now, for bridge %s", name, bridge)
        if not defined.isActive():
            defined.create()
    if LIBVIRT_FILTER not in {known_filter.name() for known_filter in handle.listAllNWFilters()}:
        handle.nwfilterDefineXML(_filter_xml())
        log.info("libvirt has filter %s now", LIBVIRT_FILTER)


def _network_xml(name: str, bridge: str) -> str:
    root = etree.Element("network")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "forward", {"mode": "bridge"})
    etree.SubElement(root, "bridge", {"name": bridge})
    return etree.tostring(root, encoding="unicode")


def _filter_xml() -> str:
    root = etree.Element("filter", {"name": LIBVIRT_FILTER, "chain": "root"})
    for part in _PARTS:
        etree.SubElement(root, "filterref", {"filter": part})
    return etree.tostring(root, encoding="unicode")
