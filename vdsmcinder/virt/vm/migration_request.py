# SPDX-License-Identifier: GPL-2.0-or-later
"""A migration as it was asked for: where a VM is to go, and how."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from vdsmcinder.config import Listen
from vdsmcinder.fields import TEXT, Kind
from vdsmcinder.virt.vm.convergence import Schedule

# RFC 1123, 2.1: labels of up to 63 characters, 255 in all.
_LABEL = "[A-Za-z0-9_-]{1,63}"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_NAME_CHARS = 255


@dataclass(frozen=True)
class Address:
    """Where a daemon listens. host: a name or an IP address, without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.url_host}:{self.port}"

    @property
    def url_host(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class MigrationRequest:
    """A migration as it was asked for, completed from the configuration.

    peer: the daemon of the other host. data_host: where QEMU's data goes. console_address: where
    clients of the VM's display are to look for it then. max_bandwidth_mib_s: 0 for no limit.
    connections: parallel ones for the data, 0 for a single one. encrypted: None leaves it to what
    both hosts can do. incoming_limit: what the other host may take in at once, None for its own.
    """

    peer: Address
    data_host: str
    console_address: str | None
    auto_converge: bool
    compressed: bool
    abort_on_error: bool
    encrypted: bool | None
    connections: int
    max_bandwidth_mib_s: int
    schedule: Schedule
    outgoing_limit: int
    incoming_limit: int | None


def _read_host(value: Any) -> str:
    host = TEXT.convert(value).strip("[]")
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    if len(host) > _NAME_CHARS or not _NAME.fullmatch(host):
        raise ValueError
    return host


def _read_address(value: Any) -> Address:
    text = TEXT.convert(value)
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        return Address(_read_host(text), Listen.port)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError
    return Address(_read_host(host), int(port))


def known_address(text: str) -> Address | None:
    """An address that a host has told of itself; None for none, and for what is none."""
    try:
        return _read_address(text)
    except ValueError:
        return None


HOST = Kind(_read_host, "the name or IP address of a host")
ADDRESS = Kind(_read_address, "a host, or host:port of its daemon")
