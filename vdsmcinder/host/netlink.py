# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses of this machine's links, asked of the kernel by rtnetlink(7).

One dump of one table needs no library: the one for netlink would cost the daemon a quarter of a
second at start and 16 MB.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Union

IpInterface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]

# linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWADDR, RTM_GETADDR = 20, 22
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_PERMANENT = 0x80

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, link's index
RTATTR = struct.Struct("=HH")  # length, type

BUFFER_BYTES = 64 * 1024
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Address:
    """One address of a link. One that is not permanent was leased or autoconfigured."""

    link_index: int
    interface: IpInterface
    permanent: bool


def addresses() -> list[Address]:
    """All addresses of this network namespace; blocks for well under a millisecond.

    Raises OSError where the kernel refuses.
    """
    request = HEADER.pack(
        HEADER.size + IFADDRMSG.size, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0
    ) + IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(TIMEOUT_S)
        kernel.sendto(request, (0, 0))
        return list(_replies(kernel))


def _replies(kernel: socket.socket) -> Iterator[Address]:
    while True:
        for kind, body in messages(kernel.recv(BUFFER_BYTES)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                errno = -int(struct.unpack_from("=i", body)[0])
                raise OSError(errno, "the kernel refused to list its addresses")
            if kind == RTM_NEWADDR and (address := parse_address(body)) is not None:
                yield address


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages of one datagram: type and body."""
    offset = 0
    while offset + HEADER.size <= len(datagram):
        length, kind, _, _, _ = HEADER.unpack_from(datagram, offset)
        if length < HEADER.size:
            return
        yield kind, datagram[offset + HEADER.size : offset + length]
        offset += _aligned(length)


def parse_address(body: bytes) -> Address | None:
    """The body of an RTM_NEWADDR message; None for a family other than IPv4 and IPv6."""
    family, prefix, flags, _, index = IFADDRMSG.unpack_from(body)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    attributes = dict(_attributes(body[IFADDRMSG.size :]))
    # IFA_ADDRESS of a point-to-point link is the peer's; its own is then IFA_LOCAL.
    packed = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
    if packed is None:
        return None
    if IFA_FLAGS in attributes:
        (flags,) = struct.unpack("=I", attributes[IFA_FLAGS])
    return Address(
        link_index=index,
        interface=ipaddress.ip_interface((packed, prefix)),
        permanent=bool(flags & IFA_F_PERMANENT),
    )


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + RTATTR.size <= len(content):
        length, kind = RTATTR.unpack_from(content, offset)
        if length < RTATTR.size:
            return
        yield kind, content[offset + RTATTR.size : offset + length]
        offset += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
