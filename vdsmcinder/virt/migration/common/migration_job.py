# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's part of a migration on the source: the call that copies, and what is asked and set.

https://libvirt.org/migration.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import libvirt
from lxml import etree

from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.migration import Handover, Progress
from vdsmcinder.virt.vm.migration_request import Address, MigrationRequest

# Where libvirt's QEMU driver looks for certificates for QEMU's data (qemu.conf).
_TLS_DIRECTORIES = ("/etc/pki/libvirt-migrate", "/etc/pki/qemu")
# What displays listen on that every host has.
_EVERYWHERE = re.compile(r"|0\.0\.0\.0|::|127\..*|::1|localhost")
# Why QEMU stops a guest that runs.
_STOPPED_BY_QEMU = (
    libvirt.VIR_DOMAIN_PAUSED_IOERROR,
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG,
    libvirt.VIR_DOMAIN_PAUSED_CRASHED,
)
# libvirt takes no 0 for 'no limit'; this is what it has in its place, in MiB/s.
_NO_LIMIT_MIB_S = 2**63 // 2**20 - 1


@dataclass(frozen=True)
class Situation:
    """A domain as libvirt has it: its state, the reason, and whether a migration goes on."""

    state: int
    reason: int
    busy: bool

    @property
    def gone(self) -> bool:
        """Whether it has no QEMU process any more."""
        return self.state in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED)

    @property
    def interrupted(self) -> bool:
        """Whether it was left standing at its handover, by a libvirtd that ended in that moment."""
        return (self.state, self.reason) == (
            libvirt.VIR_DOMAIN_PAUSED,
            libvirt.VIR_DOMAIN_PAUSED_MIGRATION,
        )

    @property
    def post_copy(self) -> bool:
        """Whether it stands because the VM runs on the other host, without all of its memory."""
        return self.broken_off or (self.state, self.reason) == (
            libvirt.VIR_DOMAIN_PAUSED,
            libvirt.VIR_DOMAIN_PAUSED_POSTCOPY,
        )

    @property
    def broken_off(self) -> bool:
        """Whether libvirt has noticed that the rest of the memory does not get there."""
        return (self.state, self.reason) == (
            libvirt.VIR_DOMAIN_PAUSED,
            libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
        )

    @property
    def begun(self) -> bool:
        """Of a VM that comes: whether its guest has run here, be it that it was stopped since."""
        if self.state == libvirt.VIR_DOMAIN_PAUSED:
            return self.reason in _STOPPED_BY_QEMU
        return not self.gone


def flags(request: MigrationRequest, handover: Handover, *, encrypted: bool) -> int:
    """VIR_MIGRATE_...; the source's domain stays defined, and Down, until the engine removes it."""
    wanted = {
        libvirt.VIR_MIGRATE_LIVE: True,
        libvirt.VIR_MIGRATE_PEER2PEER: True,
        libvirt.VIR_MIGRATE_PERSIST_DEST: True,
        libvirt.VIR_MIGRATE_PAUSED: handover is Handover.CONFIRMED,
        libvirt.VIR_MIGRATE_POSTCOPY: request.schedule.post_copy,
        libvirt.VIR_MIGRATE_AUTO_CONVERGE: request.auto_converge,
        libvirt.VIR_MIGRATE_COMPRESSED: request.compressed,
        libvirt.VIR_MIGRATE_ABORT_ON_ERROR: request.abort_on_error,
        libvirt.VIR_MIGRATE_PARALLEL: request.connections > 0,
        libvirt.VIR_MIGRATE_TLS: encrypted,
    }
    return sum(flag for flag, is_wanted in wanted.items() if is_wanted)


def resume_flags(*, encrypted: bool) -> int:
    """VIR_MIGRATE_... to go on with a post-copy that broke off."""
    return int(
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_POSTCOPY
        | libvirt.VIR_MIGRATE_POSTCOPY_RESUME
        | (libvirt.VIR_MIGRATE_TLS if encrypted else 0)
    )


@dataclass(frozen=True)
class Way:
    """How the data goes. params: typed parameters of virDomainMigrateToURI3, but for the document.

    console_address: where displays listen that listened on an address of this host.
    """

    uri: str
    flags: int
    params: Mapping[str, Any]
    console_address: str


def params(request: MigrationRequest, *, encrypted: bool) -> dict[str, Any]:
    """Typed parameters of virDomainMigrateToURI3."""
    found = route(request.peer, request.data_host, encrypted=encrypted)
    if request.max_bandwidth_mib_s:
        found[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = request.max_bandwidth_mib_s
        if request.schedule.post_copy:
            found[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = request.max_bandwidth_mib_s
    if request.connections:
        found[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = request.connections
    return found


def route(peer: Address, data_host: str, *, encrypted: bool) -> dict[str, Any]:
    """The parameters that say where QEMU's data goes."""
    url_host = f"[{data_host}]" if ":" in data_host else data_host
    found: dict[str, Any] = {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{url_host}"}
    if encrypted:
        # Its certificate names the host as engines do, and not the address of a network of its own.
        found[libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION] = peer.host
    return found


def has_tls() -> bool:
    """Whether libvirt has certificates here for QEMU's data."""
    return any(Path(d, "server-cert.pem").exists() for d in _TLS_DIRECTORIES)


# What follows runs in the connection's thread pool.


def migrate(open_another: Callable[[], libvirt.virConnect], uuid: str, way: Way) -> None:
    """Copy the VM, which takes as long as it takes; on a connection of its own."""
    handle = open_another()
    try:
        domain = handle.lookupByUUIDString(uuid)
        document = _moved(domain, way.console_address)
        more = {} if document is None else {libvirt.VIR_MIGRATE_PARAM_DEST_XML: document}
        domain.migrateToURI3(way.uri, {**way.params, **more}, way.flags)
    finally:
        handle.close()


def _moved(domain: libvirt.virDomain, console_address: str) -> str | None:
    """The domain with displays on an address of the other host; None if it can stay as it is."""
    # It holds the displays' passwords, and goes to libvirt alone.
    flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_MIGRATABLE
    root = parse(domain.XMLDesc(flags), "domain xml")
    changed = False
    for graphics in root.iterfind("devices/graphics"):
        for element in (graphics, *graphics.iterfind("listen[@type='address']")):
            name = "listen" if element is graphics else "address"
            if not _EVERYWHERE.fullmatch(element.get(name, "")):
                element.set(name, console_address)
                changed = True
    return etree.tostring(root, encoding="unicode") if changed else None


def situation(domain: libvirt.virDomain) -> Situation:
    """How the domain is now."""
    state, reason = domain.state()
    try:
        busy = domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE
    except libvirt.libvirtError as e:
        # Of a migration libvirt tells the host that the VM leaves, and says so to the other.
        busy = e.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED
        if not busy and e.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
    return Situation(state, reason, busy)


def progress(domain: libvirt.virDomain, known: Progress) -> Progress:
    """How far the copying is; as known while libvirt has no figures."""
    stats = domain.jobStats()
    total = stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_TOTAL, 0)
    if not total:
        return known
    remaining = stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_REMAINING, total)
    # What the guest writes meanwhile is copied again: shown, that would run backwards.
    percent = min(max(known.percent, 100 - 100 * remaining // total), 99)
    transferred = stats.get(libvirt.VIR_DOMAIN_JOB_MEMORY_PROCESSED, known.transferred)
    return Progress(percent, known.post_copy, known.downtime_ms, remaining, transferred)


def depart(domain: libvirt.virDomain, values: Mapping[str, str], since_s: int) -> None:
    """Note in the domain that it migrates, and when it was started, which goes along with it.

    since_s: seconds since 1970.
    """
    set_mark(domain, values)
    metadata.set_live(domain, {metadata.RUNNING_SINCE: str(since_s)})


def set_mark(domain: libvirt.virDomain, values: Mapping[str, str]) -> None:
    """Note in the domain that it migrates, or that it does not."""
    metadata.set_lasting(domain, values)
    metadata.set_live(domain, values)


def set_owed(domain: libvirt.virDomain, owed: str) -> None:
    """Note in the domain what other hosts are still to be told of it."""
    values = {metadata.OWED: owed}
    if domain.isPersistent():
        metadata.set_lasting(domain, values)
    if domain.isActive():
        metadata.set_live(domain, values)


def set_downtime(domain: libvirt.virDomain, ms: int) -> None:
    """How long the guest may stand still at the end."""
    domain.migrateSetMaxDowntime(ms)


def set_speed(domain: libvirt.virDomain, mib_s: int) -> None:
    """How much data may go; 0 for as much as can."""
    domain.migrateSetMaxSpeed(mib_s or _NO_LIMIT_MIB_S)
    domain.migrateSetMaxSpeed(mib_s, libvirt.VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY)


def start_post_copy(domain: libvirt.virDomain) -> None:
    """Let the VM run on the other host at once; the rest of its memory follows."""
    domain.migrateStartPostCopy()


def break_off_post_copy(domain: libvirt.virDomain) -> None:
    """Have QEMU give up its connection to the other host, and wait for a new one."""
    domain.abortJobFlags(libvirt.VIR_DOMAIN_ABORT_JOB_POSTCOPY)


def destroy(domain: libvirt.virDomain) -> None:
    """End the domain's QEMU process, if it has one."""
    try:
        domain.destroy()
    except libvirt.libvirtError as e:
        if not libvirt_errors.nothing_to_end(e):
            raise
