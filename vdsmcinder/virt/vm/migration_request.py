# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.migrate: where a VM is to go, and how (contract/types.txt, MigrateParams).

rpc/vm.py has them read here; virt/migration/outgoing.py does what they say.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsmcinder.config import Listen
from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.errors import UnsupportedOperation
from vdsmcinder.fields import BOOLEAN, TEXT, UUID, Fields, Kind, choice, number
from vdsmcinder.virt.vm.convergence import Schedule

_BANDWIDTH = number(0, 2**31 - 1)
_LIMIT = number(1, 2**16)
_PARALLEL = number(0, 255)
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


def parse_migration(
    vm_id: str, params: Mapping[str, Any], options: MigrationOptions
) -> MigrationRequest:
    """Read MigrateParams. Raises MissingParameter (11), InvalidParameter (91), and
    UnsupportedOperation (75) for ways to migrate that there are not."""
    fields = Fields(params, f"migration of VM {vm_id}")
    if fields.get("vmId", UUID) not in (None, vm_id):
        raise fields.invalid("vmId", f"the request's vmID, {vm_id}")
    peer = fields.need("dst", ADDRESS)
    _refuse_other_ways(fields)
    bandwidth = fields.get("maxBandwidth", _BANDWIDTH)
    encrypted = fields.get("encrypted", BOOLEAN)
    schedule = Schedule.from_fields(fields, options.max_downtime_ms)
    return MigrationRequest(
        peer=peer,
        data_host=fields.get("dstqemu", _HOST) or peer.host,
        console_address=fields.get("consoleAddress", _HOST),
        auto_converge=fields.get("autoConverge", BOOLEAN) or schedule.auto_converge,
        compressed=fields.get("compressed", BOOLEAN) or False,
        abort_on_error=fields.get("abortOnError", BOOLEAN) is not False,
        # Engines that have no wish say false, which is not to forbid it.
        encrypted=True if encrypted else _ENCRYPTION[options.encryption],
        connections=fields.get("parallel", _PARALLEL) or 0,
        max_bandwidth_mib_s=options.max_bandwidth_mib_s if bandwidth is None else bandwidth,
        schedule=schedule,
        outgoing_limit=fields.get("outgoingLimit", _LIMIT) or options.outgoing_limit,
        incoming_limit=fields.get("incomingLimit", _LIMIT),
    )


def parse_bandwidth(vm_id: str, params: Mapping[str, Any]) -> int | None:
    """Read MigrationParameters: the new limit in MiB/s, 0 for none; None if it is to stay."""
    return Fields(params, f"migration of VM {vm_id}").get("maxBandwidth", _BANDWIDTH)


_ENCRYPTION: Mapping[str, bool | None] = {"auto": None, "required": True, "off": False}


def _refuse_other_ways(fields: Fields) -> None:
    fields.get("method", choice("online"))
    if fields.get("mode", choice("remote", "file")) == "file":
        raise UnsupportedOperation(
            f"{fields.thing}: mode is 'file', but VMs are migrated to hosts alone; leave it out"
        )
    for name in ("tunneled", "zerocopy"):
        if fields.get(name, BOOLEAN):
            raise UnsupportedOperation(
                f"{fields.thing}: {name} is true, but QEMU's data goes from host to host by itself "
                "and is copied; leave it out, encrypted protects it"
            )


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


_HOST = Kind(_read_host, "the name or IP address of a host")
ADDRESS = Kind(_read_address, "a host, or host:port of its daemon")
