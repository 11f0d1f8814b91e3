# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's network in the words of the engine: the NetInfo types of contract/types.txt.

Pure: what was read of the machine goes in.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.host.network import Kind, Link, Network

NO_GATEWAY_V6 = "::"
# Where NICs of VMs are that are on no network; engines are not told of it.
DUMMY_BRIDGE = ";vdsmdummy;"
# libvirt's network for a bridge, before the bridge's name, as documents of oVirt's engine have it.
LIBVIRT_PREFIX = "vdsm-"
# libvirt's filter that keeps guests from sending in the name of others' addresses, likewise.
LIBVIRT_FILTER = "vdsm-no-mac-spoofing"


def bridges(net: Network) -> list[Link]:
    """The bridges that are networks for engines."""
    return [link for link in net.of(Kind.BRIDGE) if link.name != DUMMY_BRIDGE]


def as_dict(net: Network) -> dict[str, Any]:
    """The part of VdsmCapabilities that describes the network.

    Each bridge is reported as the network of its name: that is how engines build networks that VMs
    are plugged into. A VLAN is left out if what it is on is no interface of an engine's, such as a
    bridge: oVirt's engine would refuse all that is told here. Nobody reconfigures the network
    through us, so it is never 'dirty'.
    """
    told = {link.name: _bridge(link, net) for link in bridges(net)}
    return {
        "nics": {link.name: _nic(link, net) for link in net.of(Kind.NIC)},
        "bondings": {link.name: _bond(link, net) for link in net.of(Kind.BOND)},
        "vlans": {link.name: _vlan(link, net) for link in _told_vlans(net)},
        "bridges": told,
        "networks": {name: {**bridge, "iface": name} for name, bridge in told.items()},
        "nameservers": list(net.nameservers),
        "supportsIPv6": net.ipv6,
        "lastClientIface": net.default_link,
        "netConfigDirty": "False",
    }


def main_address(net: Network) -> str:
    """The address by which others reach this host: that of the default route's link, or ''."""
    link = net.links.get(net.default_link)
    if link is None:
        return ""
    addresses = [a.interface.ip for a in link.addresses if not a.interface.ip.is_link_local]
    return next((str(ip) for ip in addresses), "")


def _nic(link: Link, net: Network) -> dict[str, Any]:
    return {**_addressing(link, net), "hwaddr": link.mac, "speed": link.speed_mbps}


def _bond(link: Link, net: Network) -> dict[str, Any]:
    return {
        **_addressing(link, net),
        "hwaddr": link.mac,
        "slaves": list(link.ports),
        "active_slave": link.active_port,
        "opts": dict(link.options or {}),
        "switch": "legacy",
    }


def _told_vlans(net: Network) -> list[Link]:
    """Those on NICs and bonds, and those on such VLANs in turn."""
    vlans = net.of(Kind.VLAN)
    told = {link.name for link in (*net.of(Kind.NIC), *net.of(Kind.BOND))}
    while more := {link.name for link in vlans if link.parent in told} - told:
        told |= more
    return [link for link in vlans if link.name in told]


def _vlan(link: Link, net: Network) -> dict[str, Any]:
    # The one kind whose MTU is a number on the wire.
    return {
        **_addressing(link, net),
        "mtu": link.mtu,
        "iface": link.parent,
        "vlanid": link.vlan_id,
    }


def _bridge(link: Link, net: Network) -> dict[str, Any]:
    return {
        **_addressing(link, net),
        "ports": list(link.ports),
        "stp": "on" if link.stp else "off",
        "bridged": True,
        "switch": "legacy",
    }


def _addressing(link: Link, net: Network) -> dict[str, Any]:
    v4 = [a for a in link.addresses if a.interface.version == 4]
    v6 = [a for a in link.addresses if a.interface.version == 6]
    first = v4[0].interface if v4 else None
    return {
        "addr": str(first.ip) if first else "",
        "netmask": str(first.netmask) if first else "",
        "gateway": link.gateway_v4 or "",
        "ipv4addrs": [str(a.interface) for a in v4],
        "ipv4defaultroute": link.name == net.default_link and link.gateway_v4 is not None,
        "dhcpv4": any(not a.permanent for a in v4),
        "ipv6addrs": [str(a.interface) for a in v6],
        "ipv6gateway": link.gateway_v6 or NO_GATEWAY_V6,
        "ipv6autoconf": link.autoconf_v6,
        # A lease is for one address; what is autoconfigured stands in a prefix of 64 bits.
        "dhcpv6": any(not a.permanent and a.interface.network.prefixlen == 128 for a in v6),
        "mtu": str(link.mtu),
    }
