# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's links as an engine sorts them: NICs, bonds, VLANs and bridges, with addresses.

Read from sysfs, /proc/net and rtnetlink at the time of the question.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from sys import byteorder

from vdsmcinder.host import netlink
from vdsmcinder.host.files import key_values, number, text
from vdsmcinder.host.netlink import Address

RTF_UP_GATEWAY = 0x3  # linux/route.h: RTF_UP | RTF_GATEWAY


class Kind(Enum):
    """What a link is. Of the others (taps, veth pairs, loopback) an engine is told nothing."""

    NIC = "nic"
    BOND = "bond"
    VLAN = "vlan"
    BRIDGE = "bridge"
    OTHER = "other"


@dataclass(frozen=True)
class Link:
    """One link, with the default routes that go through it."""

    name: str
    kind: Kind
    mac: str
    mtu: int
    speed_mbps: int  # 0 where the driver does not tell
    addresses: tuple[Address, ...]
    gateway_v4: str | None
    gateway_v6: str | None
    autoconf_v6: bool
    ports: tuple[str, ...] = ()  # of a bridge or bond
    options: Mapping[str, str] | None = None  # of a bond: mode as a number, monitoring interval
    active_port: str = ""  # of a bond in a mode that has one
    parent: str = ""  # of a VLAN: the link that it is on
    vlan_id: int = 0
    stp: bool = False  # of a bridge


@dataclass(frozen=True)
class Network:
    """All links by name, and what holds for the machine as a whole."""

    links: Mapping[str, Link]
    default_link: str  # the link of the IPv4, else of the IPv6 default route; '' without one
    nameservers: tuple[str, ...]
    ipv6: bool

    def of(self, kind: Kind) -> list[Link]:
        """The links of one kind, by name."""
        return [link for link in self.links.values() if link.kind is kind]


def read(proc: Path = Path("/proc"), sys: Path = Path("/sys"), etc: Path = Path("/etc")) -> Network:
    """Read the network of this namespace; blocks, as drivers may when asked for a speed.

    Raises OSError where the kernel refuses to list its addresses.
    """
    gateways_v4 = default_gateways_v4(text(proc / "net/route"))
    gateways_v6 = default_gateways_v6(text(proc / "net/ipv6_route"))
    addresses = netlink.addresses()
    links = {}
    for index, name in sorted(socket.if_nameindex(), key=lambda pair: pair[1]):
        own = tuple(a for a in addresses if a.link_index == index)
        links[name] = link(
            name, own, gateways_v4.get(name), gateways_v6.get(name), proc=proc, sys=sys
        )
    return Network(
        links=links,
        default_link=next(iter([*gateways_v4, *gateways_v6]), ""),
        nameservers=nameservers(text(etc / "resolv.conf")),
        ipv6=(proc / "net/if_inet6").exists(),
    )


def link(
    name: str,
    addresses: tuple[Address, ...],
    gateway_v4: str | None,
    gateway_v6: str | None,
    *,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
) -> Link:
    """One link, as its folder in sysfs describes it."""
    folder = sys / "class/net" / name
    kind = kind_of(folder)
    autoconf = proc / "sys/net/ipv6/conf" / name
    return Link(
        name=name,
        kind=kind,
        mac=text(folder / "address"),
        mtu=number(folder / "mtu"),
        speed_mbps=max(number(folder / "speed"), 0),
        addresses=addresses,
        gateway_v4=gateway_v4,
        gateway_v6=gateway_v6,
        autoconf_v6=number(autoconf / "autoconf") > 0 and number(autoconf / "accept_ra") > 0,
        ports=_ports(folder, kind),
        options=_bond_options(folder) if kind is Kind.BOND else None,
        active_port=text(folder / "bonding/active_slave"),
        parent=_parent(folder) if kind is Kind.VLAN else "",
        vlan_id=_vlan_id(proc / "net/vlan" / name) if kind is Kind.VLAN else 0,
        stp=number(folder / "bridge/stp_state") > 0,
    )


def kind_of(folder: Path) -> Kind:
    """What the link is whose folder in sysfs this is. Only a NIC is backed by a device."""
    if (folder / "bridge").is_dir():
        return Kind.BRIDGE
    if (folder / "bonding").is_dir():
        return Kind.BOND
    if key_values(text(folder / "uevent")).get("DEVTYPE") == "vlan":
        return Kind.VLAN
    return Kind.NIC if (folder / "device").exists() else Kind.OTHER


def default_gateways_v4(route: str) -> dict[str, str]:
    """/proc/net/route: the gateway of each link's default route, that of least metric first."""
    found = []
    for line in route.splitlines()[1:]:
        name, destination, gateway, flags, _, _, metric, mask, *_ = line.split()
        if int(destination, 16) == int(mask, 16) == 0 and int(flags, 16) & 0x3 == RTF_UP_GATEWAY:
            # The address stands as the kernel keeps it: a number of the machine's byte order.
            packed = int(gateway, 16).to_bytes(4, byteorder)
            found.append((int(metric), name, str(ipaddress.IPv4Address(packed))))
    return _by_link(found)


def default_gateways_v6(route: str) -> dict[str, str]:
    """/proc/net/ipv6_route: the gateway of each link's default route, least metric first."""
    found = []
    for line in route.splitlines():
        destination, prefix, _, _, gateway, metric, _, _, flags, name = line.split()
        is_default = int(destination, 16) == 0 and int(prefix, 16) == 0
        if is_default and int(flags, 16) & 0x3 == RTF_UP_GATEWAY:
            address = str(ipaddress.IPv6Address(bytes.fromhex(gateway)))
            found.append((int(metric, 16), name, address))
    return _by_link(found)


def _by_link(routes: list[tuple[int, str, str]]) -> dict[str, str]:
    gateways: dict[str, str] = {}
    for _, name, gateway in sorted(routes):
        gateways.setdefault(name, gateway)
    return gateways


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """resolv.conf(5): the addresses of the name servers, in their order."""
    lines = (line.split() for line in resolv_conf.splitlines())
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


def _ports(folder: Path, kind: Kind) -> tuple[str, ...]:
    if kind is Kind.BRIDGE:
        return tuple(sorted(port.name for port in (folder / "brif").glob("*")))
    return tuple(sorted(text(folder / "bonding/slaves").split()))


def _bond_options(folder: Path) -> dict[str, str]:
    # 'active-backup 1': engines know modes by their number.
    mode = text(folder / "bonding/mode").split()
    return {"mode": mode[-1] if mode else "0", "miimon": text(folder / "bonding/miimon", "0")}


def _parent(folder: Path) -> str:
    return next((path.name[len("lower_") :] for path in folder.glob("lower_*")), "")


def _vlan_id(path: Path) -> int:
    for line in text(path).splitlines():
        words = line.split()
        if "VID:" in words:
            return int(words[words.index("VID:") + 1])
    return 0
