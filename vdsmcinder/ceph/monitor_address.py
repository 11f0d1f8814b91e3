# SPDX-License-Identifier: GPL-2.0-or-later
"""The address of a Ceph monitor, as device descriptions, connection infos and libvirt name it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import TEXT, Fields, Kind, choice, kind_of, number

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")


def _host(value: Any) -> str:
    text = TEXT.convert(value)
    bracketed = text.startswith("[") and text.endswith("]") and ":" in text
    name = text[1:-1] if bracketed else text
    if not _is_host(name):
        raise ValueError
    return name


def _is_host(name: str) -> bool:
    if ":" in name:
        return "%" not in name and _is_address(name)
    labels = name.rstrip(".").split(".")
    # Four numbers are an address or a typing error, never a name (RFC 1123, section 2.1).
    if labels[-1].isdigit():
        return _is_address(name)
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


HOST = Kind(_host, "an IPv4 address, an IPv6 address or a host name")
PORT = number(1, 65535)


@dataclass(frozen=True)
class MonitorHost:
    """Where a monitor listens.

    name: IPv4 or IPv6 address (without brackets, as libvirt wants it) or a host name.
    port: None leaves the choice to librados, which tries 3300 and 6789.
    transport: 'tcp' or None, which means the same to libvirt.
    """

    name: str
    port: int | None = None
    transport: str | None = None

    def __post_init__(self) -> None:
        if not _is_host(self.name):
            raise InvalidParameter(
                f"monitor: host name is {kind_of(self.name)}; expected {HOST.expected}",
                field="name",
            )
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InvalidParameter(
                f"monitor {self.name}: port is {self.port}; expected {PORT.expected}", field="port"
            )
        if self.transport not in (None, "tcp"):
            raise InvalidParameter(
                f"monitor {self.name}: transport is {kind_of(self.transport)}; expected tcp",
                field="transport",
            )

    @classmethod
    def from_fields(cls, fields: Fields) -> MonitorHost:
        """Read one element of a device description's `hosts`: name, port, transport."""
        return cls(
            name=fields.need("name", HOST),
            port=fields.get("port", PORT),
            transport=fields.get("transport", choice("tcp")) or "tcp",
        )
